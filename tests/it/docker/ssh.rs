//! `DOCKER_HOST=ssh://...`, through an sshd of the test's own on 127.0.0.1.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::faults::{CASE, Case, assert_failed};
use super::{Docker, DockerPlan, docker};
use crate::support::{Ended, Kill, Lab, wait_until};

/// An sshd that lets this user in by a key of the test's own.
struct Sshd {
    port: u16,
    _daemon: Kill,
}

fn key(path: &Path) {
    let mut make = Command::new("ssh-keygen");
    make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path);
    assert!(make.status().unwrap().success(), "needs openssh");
}

impl Sshd {
    /// Its files are in `lab`. A program `ssh` there takes them, where it is first in PATH.
    fn start(lab: &Lab) -> Self {
        // Where sshd separates its privileges.
        std::fs::create_dir_all("/run/sshd").unwrap();
        let file = |name: &str| lab.path(name).display().to_string();
        for name in ["host_key", "user_key", "other_key"] {
            key(&lab.path(name));
        }
        lab.write("authorized", &lab.read("user_key.pub"));
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             UsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n\
             MaxStartups 100\n",
            file("host_key"),
            file("authorized")
        );
        let config = lab.write("sshd_config", &config);
        let host_key = lab.read("host_key.pub");
        lab.write("known", &format!("[127.0.0.1]:{port} {host_key}"));
        lab.write(
            "ssh_config",
            &format!(
                "IdentityFile {}\nIdentitiesOnly yes\nUserKnownHostsFile {}\n\
                 Host box\n  HostName 127.0.0.1\n  HostKeyAlias [127.0.0.1]:{port}\n",
                file("user_key"),
                file("known")
            ),
        );
        let wrapper = format!(
            "#!/bin/sh\nexec /usr/bin/ssh -F {} \"$@\"\n",
            file("ssh_config")
        );
        let wrapper = lab.write("bin/ssh", &wrapper);
        Command::new("chmod")
            .arg("+x")
            .arg(wrapper)
            .status()
            .unwrap();
        let mut daemon = Command::new("/usr/sbin/sshd");
        daemon.arg("-D").arg("-f").arg(config);
        daemon.arg("-E").arg(lab.path("sshd.log"));
        let daemon = Kill(daemon.stdin(Stdio::null()).spawn().unwrap());
        let listens = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        assert!(wait_until(Duration::from_secs(10), listens));
        Self {
            port,
            _daemon: daemon,
        }
    }

    fn host(&self) -> String {
        format!("ssh://root@127.0.0.1:{}", self.port)
    }
}

fn labrun(lab: &Lab, host: &str, arguments: &[&str]) -> Ended {
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", lab.path("bin").display());
    let mut command = lab.command(arguments);
    command.env("DOCKER_HOST", host).env("PATH", path);
    Ended::of(&command.output().unwrap())
}

/// Processes of ssh that this lab's wrapper started.
fn clients(lab: &Lab) -> usize {
    let shown = Command::new("ps").args(["-eo", "args"]).output().unwrap();
    let config = lab.path("ssh_config").display().to_string();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    shown.lines().filter(|line| line.contains(&config)).count()
}

#[test]
#[ignore = "needs Docker and openssh-server, and root"]
fn a_run_through_ssh_is_as_any_other_and_leaves_no_ssh() {
    let docker_ = Docker::new();
    let lab = Lab::new();
    let sshd = Sshd::start(&lab);
    let plan = DockerPlan {
        matrix: r#"tier = ["redis", "disk"]"#,
        server: "redis_image = \"labrun-test/redis\"",
        ..DockerPlan::default()
    };
    lab.write("plan.toml", &plan.text());
    // The socket's path goes with it, as with Docker's own client.
    for (out, host) in [
        ("out", sshd.host()),
        ("out2", format!("{}/var/run/docker.sock", sshd.host())),
    ] {
        labrun(&lab, &host, &["plan.toml", "--out", out]).expect_code(0);
    }
    for (_, cell) in lab.cells() {
        assert_eq!(cell["passes"][0]["verdict"]["status"], "valid", "{cell}");
        assert_eq!(cell["server"]["containers"][0]["exit_code"], 0, "{cell}");
    }
    let gone = wait_until(Duration::from_secs(3), || clients(&lab) == 0);
    assert!(gone, "ssh was left behind");
    let doctor = labrun(&lab, &sshd.host(), &["doctor"]).stdout;
    assert!(doctor.contains(&sshd.host()), "{doctor}");
    docker_.assert_as_before();
}

#[test]
#[ignore = "needs Docker and openssh-server, and root"]
fn an_ssh_that_fails_fails_the_cell_with_what_it_said() {
    let docker_ = Docker::new();
    let lab = Lab::new();
    let sshd = Sshd::start(&lab);
    lab.write("plan.toml", &DockerPlan::default().text());
    let check = |out: &str, host: &str, says: &'static str| {
        let ended = labrun(&lab, host, &["plan.toml", "--out", out]);
        assert_eq!(ended.code, Some(1), "{says}: {}", ended.stderr);
        let cell = lab.cells_of(out).remove(0).1;
        let case = Case {
            name: says,
            says,
            ..CASE
        };
        assert_failed(&case, &cell);
        let error = cell["outcome"]["error"].as_str().unwrap();
        // As a record shows a URL: without its user.
        let reach = "cannot reach Docker at `ssh://***@127.0.0.1";
        assert!(error.contains(reach), "{error}");
        docker_.assert_as_before();
    };
    check("nobody", "ssh://root@127.0.0.1:1", "Connection refused");
    check("password", "ssh://me:pw@127.0.0.1", "takes no password");
    let host = sshd.host();
    check(
        "no_socket",
        &format!("{host}/no/such.sock"),
        "/no/such.sock",
    );

    let authorized = lab.read("authorized");
    lab.write(
        "authorized",
        &format!("command=\"no-such-docker\" {authorized}"),
    );
    check("no_docker", &host, "not found");
    lab.write("authorized", &lab.read("other_key.pub"));
    check("refused", &host, "Permission denied (publickey");
    lab.write("authorized", &authorized);
    lab.write("known", "");
    check("unknown", &host, "Host key verification failed");
}

#[test]
#[ignore = "needs Docker and openssh-server, and root"]
fn what_labrun_left_on_another_machine_is_not_judged_from_here() {
    let docker_ = Docker::new();
    let lab = Lab::new();
    let sshd = Sshd::start(&lab);
    // A container of a labrun that is not here; there it may live.
    let stat = std::fs::read_link("/proc/self/ns/pid").unwrap();
    let namespace: String = stat
        .to_string_lossy()
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    let owner = format!("labrun.owner=4194304-1-{namespace}");
    let run = ["run", "-d", "--label", &owner, "labrun-test/redis"];
    let id = docker(&run);
    let elsewhere = format!("ssh://root@box:{}", sshd.port);
    let cleaned = labrun(&lab, &elsewhere, &["clean"]).expect_code(0);
    assert!(
        cleaned.stderr.contains("another machine's"),
        "{}",
        cleaned.stderr
    );
    assert_eq!(
        docker(&["inspect", "-f", "{{.State.Running}}", &id]),
        "true"
    );
    let cleaned = labrun(&lab, &sshd.host(), &["clean"]).expect_code(0);
    let removed = "removed container";
    assert!(cleaned.stdout.contains(removed), "{}", cleaned.stdout);
    docker_.assert_as_before();
}
