//! Servers that answer anything: whatever comes, labrun ends, gives a short reason, and neither
//! crashes nor fills the memory.

use std::fmt;
use std::io::{BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::http::{Answer, ask, listen, next_request};
use crate::support::{Ended, Kill, Lab, wait_until};

/// Memory that labrun may use, KiB: the largest answer that is read takes a quarter of it.
const MAX_DATA_KIB: u32 = 1 << 20;

/// What is done to the bytes of an answer.
#[derive(Clone, Copy, Debug)]
enum Attack {
    Random,
    Flipped,
    Cut,
    Inserted,
    RandomBody,
    OtherJson,
    Repeated,
    /// More than any limit.
    Endless,
}

const ATTACKS: [Attack; 8] = [
    Attack::Random,
    Attack::Flipped,
    Attack::Cut,
    Attack::Inserted,
    Attack::RandomBody,
    Attack::OtherJson,
    Attack::Repeated,
    Attack::Endless,
];

/// The routes that a run asks.
const ROUTES: [&str; 6] = [
    "/health",
    "/v1/models",
    "/version",
    "/metrics",
    "/v1/completions",
    "/reset_prefix_cache",
];

/// One attack, which its number repeats.
#[derive(Clone, Copy)]
struct Round {
    number: u64,
    route: &'static str,
    attack: Attack,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "round {}: {:?} at {}",
            self.number, self.attack, self.route
        )
    }
}

impl Round {
    fn new(number: u64) -> Self {
        let at = |number: u64, length: usize| usize::try_from(number).unwrap() % length;
        Self {
            number,
            route: ROUTES[at(number, ROUTES.len())],
            attack: ATTACKS[at(number / ROUTES.len() as u64, ATTACKS.len())],
        }
    }

    fn bytes(self, good: &Answer) -> Vec<u8> {
        let mut random = ChaCha8Rng::seed_from_u64(self.number);
        let mut bytes = good.bytes();
        let some = |random: &mut ChaCha8Rng| {
            let mut some = vec![0; random.random_range(0..3000)];
            random.fill(&mut some[..]);
            some
        };
        match self.attack {
            Attack::Random => some(&mut random),
            Attack::Flipped => {
                for _ in 0..random.random_range(1..9) {
                    let at = random.random_range(0..bytes.len());
                    bytes[at] ^= 1 << random.random_range(0..8);
                }
                bytes
            }
            Attack::Cut => {
                bytes.truncate(random.random_range(0..bytes.len()));
                bytes
            }
            Attack::Inserted => {
                let at = random.random_range(0..bytes.len());
                bytes.splice(at..at, some(&mut random));
                bytes
            }
            Attack::RandomBody => {
                let body = some(&mut random);
                Answer {
                    body,
                    ..good.clone()
                }
                .bytes()
            }
            Attack::OtherJson => {
                let deep = "[".repeat(200_000);
                let all = [
                    "null",
                    "[]",
                    "{}",
                    "1e999",
                    "{\"data\":5,\"version\":[],\"success\":\"no\",\"usage\":{\"completion_tokens\":-1}}",
                    "{\"data\":[{\"id\":null},{},5],\"version\":{\"a\":1}}",
                    &deep,
                ];
                let body = all[random.random_range(0..all.len())];
                Answer {
                    body: body.into(),
                    ..good.clone()
                }
                .bytes()
            }
            Attack::Repeated => bytes.repeat(3),
            Attack::Endless => bytes,
        }
    }

    /// Answers as the simulator on `sim` does, but for the route under attack.
    fn serve(self, sim: u16) -> u16 {
        listen(move |mut stream| {
            let mut from = BufReader::new(stream.try_clone().unwrap());
            while let Some(request) = next_request(&mut from) {
                let Some(good) = ask(sim, &request) else {
                    return;
                };
                if request.path != self.route {
                    if stream.write_all(&good.bytes()).is_err() {
                        return;
                    }
                    continue;
                }
                if matches!(self.attack, Attack::Endless) {
                    endless(&mut stream, &good);
                } else {
                    drop(stream.write_all(&self.bytes(&good)));
                }
                return;
            }
        })
    }
}

/// Writes 400 MB without a line's end, where somebody reads them.
fn endless(stream: &mut TcpStream, good: &Answer) {
    let kind = &good.kind;
    let head = format!("HTTP/1.1 200 X\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\ndata: ");
    let block = vec![b'x'; 1 << 20];
    let mut sent = stream.write_all(head.as_bytes());
    for _ in 0..400 {
        sent = sent.and_then(|()| stream.write_all(&block));
    }
}

const PLAN: &str = r#"
name = "hostile"
model = "m"
[matrix]
tier = ["baseline"]
prompt_len = [64]
gen_len = [2]
concurrency = [1]
label = ["rag"]
[run]
requests = 2
canaries = 1
states = ["cold", "gpu"]
[load]
first_token_timeout_s = 2
total_timeout_s = 4
drain_s = 1
[workload.rag]
kind = "unique"
[server]
launcher = "external"
url = "http://127.0.0.1:@PORT@"
ready_timeout_s = 1
"#;

/// How labrun ends with these arguments and little memory. It is ended after a minute.
fn end_of(lab: &Lab, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Ended, String> {
    let limited = format!("ulimit -d {MAX_DATA_KIB}; exec \"$@\"");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &limited, "sh", env!("CARGO_BIN_EXE_labrun")])
        .args(arguments)
        .envs(variables.iter().copied())
        .current_dir(lab.path(""))
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(lab.path("stdout")).unwrap())
        .stderr(std::fs::File::create(lab.path("stderr")).unwrap());
    let mut child = Kill(shell.spawn().unwrap());
    let mut code = None;
    let ends = wait_until(Duration::from_secs(60), || {
        code = child.0.try_wait().unwrap();
        code.is_some()
    });
    let read = |name: &str| {
        let bytes = std::fs::read(lab.path(name)).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let ended = Ended {
        code: code.and_then(|status| status.code()),
        stdout: read("stdout"),
        stderr: read("stderr"),
    };
    let shown = format!("{}{}", ended.stdout, ended.stderr);
    let is_control = |c: char| c.is_control() && !"\n\t".contains(c);
    let problem = match ended.code {
        _ if !ends => "it does not end",
        Some(0..=2) if shown.contains("panicked") => "it panicked and went on",
        Some(0..=2) if ended.stderr.len() > 20_000 => "its error is long",
        Some(0..=2) if shown.contains(is_control) => "it steers the terminal",
        Some(1 | 2) if ended.stderr.trim().is_empty() => "it gives no reason",
        Some(0..=2) => return Ok(ended),
        _ => "it crashed",
    };
    let shown: String = shown.chars().take(3000).collect();
    Err(format!("{problem}, {:?}: {shown:?}", ended.code))
}

/// Runs these rounds against one simulator, two at a time; returns what went wrong.
fn play(rounds: impl Iterator<Item = u64>) -> Vec<String> {
    let lab = Lab::new();
    let (_sim, sim) = lab.simulator();
    let (even, odd): (Vec<u64>, Vec<u64>) = rounds.partition(|number| number % 2 == 0);
    let play = |numbers: Vec<u64>| {
        let wrong = |number| play_one(Round::new(number), sim).err();
        numbers.into_iter().filter_map(wrong).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| play(odd));
        let mut wrong = play(even);
        wrong.extend(other.join().unwrap());
        wrong
    })
}

fn play_one(round: Round, sim: u16) -> Result<(), String> {
    let lab = Lab::new();
    let port = round.serve(sim);
    let fail = |what: String| format!("{round}: {what}");
    if round.route == "/v1/completions" {
        let url = format!("http://127.0.0.1:{port}");
        let load = "--model m --prompt-len 64 --gen-len 2 --requests 2";
        let load: Vec<&str> = load.split(' ').collect();
        let arguments = [&["bench", &url], &load[..]].concat();
        end_of(&lab, &arguments, &[]).map_err(fail)?;
    }
    lab.write("plan.toml", &PLAN.replace("@PORT@", &port.to_string()));
    end_of(&lab, &["plan.toml", "--out", "out"], &[]).map_err(fail)?;
    // Whatever was recorded can be read.
    if lab.path("out/cells").exists() {
        end_of(&lab, &["report", "out"], &[]).map_err(fail)?;
    }
    Ok(())
}

#[test]
fn a_hostile_server_gets_an_error_and_nothing_else() {
    let wrong = play((0..48).step_by(5));
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
#[ignore = "takes minutes without optimizations"]
fn hostile_servers_get_an_error_and_nothing_else() {
    let wrong = play(0..192);
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// A Redis that answers each command with bytes of these, changed by `number`.
fn hostile_redis(number: u64) -> u16 {
    let info = "redis_version:7.2.4\r\nused_memory:1\r\nmaxmemory:0\r\n";
    let good = [
        "+OK\r\n".to_owned(),
        ":0\r\n".to_owned(),
        format!("${}\r\n{info}\r\n", info.len()),
        "*2\r\n$18\r\nproto-max-bulk-len\r\n$9\r\n536870912\r\n".to_owned(),
        "$99999999999\r\n".to_owned(),
        "*99999999\r\n".to_owned(),
        "*1\r\n".repeat(100_000),
        "%1\r\n+a\r\n>1\r\n~1\r\n,nan\r\n".to_owned(),
        "-ERR \u{1b}[2J no\r\n".to_owned(),
    ];
    listen(move |mut stream| {
        let mut random = ChaCha8Rng::seed_from_u64(number);
        let mut asked = [0; 4096];
        while stream.read(&mut asked).is_ok_and(|read| read > 0) {
            let mut bytes = good[random.random_range(0..good.len())]
                .clone()
                .into_bytes();
            if random.random_bool(0.5) {
                let at = random.random_range(0..bytes.len());
                bytes[at] ^= 1 << random.random_range(0..8);
            }
            if stream.write_all(&bytes).is_err() || random.random_bool(0.2) {
                return;
            }
        }
    })
}

#[test]
fn a_hostile_redis_is_a_line_of_doctor() {
    let lab = Lab::new();
    for number in 0..12 {
        let url = format!("redis://127.0.0.1:{}", hostile_redis(number));
        let variables = [
            ("LABRUN_REDIS__URL", url.as_str()),
            ("DOCKER_HOST", "unix:///no/docker"),
        ];
        let ended = end_of(&lab, &["doctor"], &variables);
        let ended = ended.unwrap_or_else(|why| panic!("Redis {number}: {why}"));
        assert!(
            ended.stdout.contains("Redis"),
            "Redis {number}: {}",
            ended.stdout
        );
    }
}
