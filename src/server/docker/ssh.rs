//! A daemon behind ssh, as Docker's own client reaches it: `ssh HOST docker system dial-stdio` carries
//! one connection on its standard input and output.

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll, ready};

use anyhow::{Context as _, Result, bail, ensure};
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

/// Stands for the daemon in requests, whose connection is made otherwise.
const ADDRESS: &str = "http://docker";
/// The most of what ssh says that an error quotes, bytes.
const SAID_BYTES: u64 = 2_000;

/// A client of the daemon that `host` (`ssh://[USER@]HOST[:PORT][/SOCKET]`) names. Nothing is
/// connected yet.
pub fn client(host: &str, answer_limit_s: u64) -> Result<Docker> {
    let client = Client::builder(TokioExecutor::new()).build(Dial(Destination::parse(host)?));
    let transport = move |request: BollardRequest| {
        let answer = client.request(request);
        async move { answer.await.map_err(own_words) }
    };
    let docker = Docker::connect_with_custom_transport(
        transport,
        Some(ADDRESS),
        answer_limit_s,
        API_DEFAULT_VERSION,
    );
    docker.context("making a client of Docker over ssh")
}

/// What [`Dialled`] said, without the words of every layer above it.
fn own_words(error: legacy::Error) -> bollard::errors::Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(one) = cause {
        if let Some(own) = one.downcast_ref::<io::Error>() {
            return io::Error::new(own.kind(), own.to_string()).into();
        }
        cause = one.source();
    }
    error.into()
}

/// What the words after `ssh://` say.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Destination {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    /// The daemon's socket there; absent: its client's default.
    socket: Option<String>,
}

impl Destination {
    fn parse(text: &str) -> Result<Self> {
        let rest = text.strip_prefix("ssh://").unwrap_or(text);
        ensure!(
            !rest.contains(['?', '#']),
            "an ssh address has neither `?` nor `#`; write ssh://[USER@]HOST[:PORT]"
        );
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.contains(':')) {
            bail!("an ssh address takes no password; use a key");
        }
        let (host, port) = match address.strip_prefix('[') {
            Some(v6) => {
                let (host, rest) = v6.split_once(']').context("a `[` without its `]`")?;
                (host, rest.strip_prefix(':'))
            }
            None => match address.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            },
        };
        ensure!(!host.is_empty(), "it names no host");
        let port = port.map(|port| port.parse().with_context(|| format!("`{port}` is no port")));
        // It goes through the shell of that machine.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        ensure!(
            path.chars().all(is_plain),
            "`/{path}` is no path of a socket that can be passed through ssh"
        );
        Ok(Self {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port: port.transpose()?,
            socket: Some(format!("/{path}")).filter(|_| !path.is_empty()),
        })
    }

    /// What ssh is started with. It asks nothing: there would be a question for each connection, in
    /// the midst of a measurement.
    fn arguments(&self) -> Vec<OsString> {
        let mut all: Vec<String> = ["-o", "ConnectTimeout=30", "-o", "BatchMode=yes", "-T"]
            .map(str::to_owned)
            .into();
        if let Some(user) = &self.user {
            all.extend(["-l".to_owned(), user.clone()]);
        }
        if let Some(port) = self.port {
            all.extend(["-p".to_owned(), port.to_string()]);
        }
        all.extend(["--".to_owned(), self.host.clone(), "docker".to_owned()]);
        if let Some(socket) = &self.socket {
            all.extend(["--host".to_owned(), format!("unix://{socket}")]);
        }
        all.extend(["system".to_owned(), "dial-stdio".to_owned()]);
        all.into_iter().map(OsString::from).collect()
    }
}

/// Makes connections.
#[derive(Clone, Debug)]
struct Dial(Destination);

impl tower_service::Service<hyper::Uri> for Dial {
    type Response = TokioIo<Dialled>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: hyper::Uri) -> Self::Future {
        let dialled = Dialled::start(&self.0);
        async move { Ok(TokioIo::new(dialled?)) }.boxed()
    }
}

/// One connection, and the ssh that carries it.
#[derive(Debug)]
struct Dialled {
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    ssh: Ssh,
}

impl Dialled {
    fn start(destination: &Destination) -> io::Result<Self> {
        let mut command = Command::new("ssh");
        command
            .args(destination.arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for labrun, which still needs the daemon to stop what it started.
            .process_group(0)
            .kill_on_drop(true);
        let started = command.spawn();
        let mut child = started
            .map_err(|error| io::Error::new(error.kind(), format!("starting `ssh`: {error}")))?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(io::Error::other("`ssh` was started without its pipes"));
        };
        let host = destination.host.clone();
        Ok(Self {
            stdin: Some(stdin),
            stdout,
            ssh: Ssh::Runs(tokio::spawn(end_of(child, stderr, host))),
        })
    }
}

/// The process, to its end.
#[derive(Debug)]
enum Ssh {
    Runs(JoinHandle<Option<String>>),
    /// What went wrong, if anything did.
    Ended(Option<String>),
}

/// Waits for the end of `child`. Returns what went wrong, if anything did.
async fn end_of(mut child: Child, stderr: ChildStderr, host: String) -> Option<String> {
    let mut said = Vec::new();
    let mut start = stderr.take(SAID_BYTES);
    let _unreadable = start.read_to_end(&mut said).await;
    let mut rest = start.into_inner();
    let _unreadable = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    let said = String::from_utf8_lossy(&said);
    let said = said.trim();
    match child.wait().await {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!(
            "`ssh {host} docker system dial-stdio` ended with {status}: {said} (does \
             `ssh -o BatchMode=yes {host} docker version` work?)"
        )),
        Err(error) => Some(format!("waiting for `ssh`: {error}")),
    }
}

impl Ssh {
    /// Once it has ended: an error where it failed.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Self::Runs(task) = self {
            let ended = ready!(Pin::new(task).poll(cx));
            *self = Self::Ended(ended.unwrap_or_else(|error| Some(error.to_string())));
        }
        Poll::Ready(match self {
            Self::Ended(Some(wrong)) => Err(io::Error::other(wrong.clone())),
            _ => Ok(()),
        })
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        if let Self::Runs(task) = self {
            task.abort();
        }
    }
}

impl AsyncRead for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stdout).poll_read(cx, buffer))?;
        if buffer.filled().len() == before {
            // The end: ssh knows why.
            return self.ssh.poll_end(cx);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Dialled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(stdin) = &mut self.stdin else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        match ready!(Pin::new(stdin).poll_write(cx, bytes)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                ready!(self.ssh.poll_end(cx))?;
                Poll::Ready(Err(error))
            }
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(stdin) = &mut self.stdin {
            ready!(Pin::new(stdin).poll_shutdown(cx))?;
        }
        // Only closing it tells the other side.
        self.stdin = None;
        Poll::Ready(Ok(()))
    }
}

impl Connection for Dialled {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(host: &str) -> String {
        let arguments = Destination::parse(host).unwrap().arguments();
        let words = arguments.iter().map(|word| word.to_str().unwrap());
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn an_address_is_read_as_dockers_own_client_does() {
        let common = "-o ConnectTimeout=30 -o BatchMode=yes -T";
        for (host, expected) in [
            ("ssh://box", "-- box docker system dial-stdio"),
            (
                "ssh://me@box:2222",
                "-l me -p 2222 -- box docker system dial-stdio",
            ),
            (
                "ssh://me@[::1]:22",
                "-l me -p 22 -- ::1 docker system dial-stdio",
            ),
            (
                "ssh://box/run/user/1000/docker.sock",
                "-- box docker --host unix:///run/user/1000/docker.sock system dial-stdio",
            ),
        ] {
            assert_eq!(line(host), format!("{common} {expected}"), "{host}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (host, says) in [
            ("ssh://", "names no host"),
            ("ssh://me:secret@box", "no password"),
            ("ssh://box:high", "`high` is no port"),
            ("ssh://box?x=1", "neither `?` nor `#`"),
            ("ssh://box/a b;c", "no path of a socket"),
        ] {
            let error = format!("{:#}", Destination::parse(host).unwrap_err());
            assert!(error.contains(says), "{host}: {error}");
        }
    }
}
