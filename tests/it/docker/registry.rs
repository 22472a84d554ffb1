//! A registry of this test's own: as much of the distribution API (v2, over HTTP) as a daemon needs
//! to pull. Daemons take one on 127.0.0.1 without TLS.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::docker;

const REPOSITORY: &str = "labrun-test/pulled";
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Not compressed: a layer's digest is the digest of its content.
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Of the layer that no daemon has seen.
const OWN_LAYER_BYTES: usize = 4 << 20;
/// Pieces of a blob that is sent slowly, and the pause after each.
const PIECE_BYTES: usize = 256 << 10;
const PAUSE: Duration = Duration::from_millis(120);

/// How the layer that no daemon has seen is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sends {
    /// Whole, so slowly that progress can be seen.
    Slowly,
    /// Half of it; after that nobody may have it any more.
    HalfThenRefuses,
    /// As many other bytes.
    Garbled,
}

/// The registry. What was pulled from it is removed with it.
pub(crate) struct Registry {
    port: u16,
    layers: [Blob; 2],
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Manifests by tag and by digest.
    manifests: HashMap<String, Vec<u8>>,
    blobs: HashMap<String, Blob>,
    asked: Vec<String>,
    is_cut: bool,
}

#[derive(Clone)]
struct Blob {
    bytes: Arc<Vec<u8>>,
    digest: String,
    sends: Option<Sends>,
}

impl Registry {
    /// With `:1`, an image of labrun's simulator that is on no machine yet. Its files are made in
    /// `folder`.
    pub(crate) fn start(folder: &Path, sends: Sends) -> Self {
        let own = folder.join("own");
        std::fs::create_dir_all(&own).unwrap();
        let mut noise = vec![0; OWN_LAYER_BYTES];
        let mut random = std::fs::File::open("/dev/urandom").unwrap();
        random.read_exact(&mut noise).unwrap();
        std::fs::write(own.join("noise"), &noise).unwrap();
        let program = layer(&program_root(folder, env!("CARGO_BIN_EXE_labrun")));
        let mut own = layer(&own);
        own.sends = Some(sends);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let registry = Self {
            port: listener.local_addr().unwrap().port(),
            layers: [program, own],
            state: Arc::default(),
        };
        registry.publish("1");
        let state = Arc::clone(&registry.state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                // A daemon that hangs up is none of the test's business.
                thread::spawn(move || drop(serve(stream, &state)));
            }
        });
        registry
    }

    /// What a plan names: `:TAG` or `@DIGEST`.
    pub(crate) fn image(&self, reference: &str) -> String {
        format!("127.0.0.1:{}/{REPOSITORY}{reference}", self.port)
    }

    /// Makes the tag `1` stand for an image that differs from all before by its environment.
    /// Returns its digest.
    pub(crate) fn publish(&self, version: &str) -> String {
        let digests: Vec<&str> = self.layers.iter().map(|layer| &*layer.digest).collect();
        let config = blob(json_bytes(&json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/usr/local/bin", format!("PULLED_VERSION={version}")]},
            "rootfs": {"type": "layers", "diff_ids": digests},
            "history": [{"created_by": "program"}, {"created_by": "own"}],
        })));
        let describe = |kind: &str, blob: &Blob| json!({"mediaType": kind, "size": blob.bytes.len(), "digest": blob.digest});
        let layers = self.layers.iter().map(|layer| describe(LAYER, layer));
        let manifest = blob(json_bytes(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": describe(CONFIG, &config),
            "layers": layers.collect::<Vec<_>>(),
        })));
        let mut state = self.state.lock().unwrap();
        for blob in self.layers.iter().chain([&config]) {
            state.blobs.insert(blob.digest.clone(), blob.clone());
        }
        for name in ["1", &manifest.digest] {
            let bytes = manifest.bytes.to_vec();
            state.manifests.insert(name.to_owned(), bytes);
        }
        manifest.digest
    }

    /// Forgets and returns what was asked for: `GET manifests/1`.
    pub(crate) fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }

    /// Whether a layer was asked for, and not a manifest or a configuration.
    pub(crate) fn is_of_layer(&self, asked: &str) -> bool {
        let mut digests = self.layers.iter().map(|layer| &layer.digest);
        digests.any(|digest| asked.ends_with(digest.as_str()))
    }

    /// Takes what was pulled from here off the machine.
    pub(crate) fn remove_pulled(&self) {
        let reference = format!("reference={}", self.image(""));
        let found = docker(&["images", "-q", "--no-trunc", "--filter", &reference]);
        let mut ids: Vec<&str> = found.lines().collect();
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            docker(&["rmi", "-f", id]);
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.remove_pulled();
        }
    }
}

/// A root with the program, in /usr/local/bin, and the libraries that it needs, and nothing else.
fn program_root(folder: &Path, built: &str) -> PathBuf {
    let root = folder.join("program");
    let name = Path::new(built).file_name().unwrap();
    let program = root.join("usr/local/bin").join(name);
    std::fs::create_dir_all(program.parent().unwrap()).unwrap();
    let mut strip = Command::new("strip");
    let stripped = strip.arg("-o").arg(&program).arg(built).status();
    assert!(stripped.unwrap().success());
    let libraries = Command::new("ldd").arg(built).output().unwrap();
    for word in String::from_utf8_lossy(&libraries.stdout).split_whitespace() {
        if word.starts_with('/') {
            let inside = root.join(word.trim_start_matches('/'));
            std::fs::create_dir_all(inside.parent().unwrap()).unwrap();
            std::fs::copy(word, inside).unwrap();
        }
    }
    root
}

/// The content of `root` as a layer.
fn layer(root: &Path) -> Blob {
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-C"]);
    let made = tar.arg(root).args(["-c", "."]).output().unwrap();
    assert!(made.status.success());
    blob(made.stdout)
}

fn blob(bytes: Vec<u8>) -> Blob {
    Blob {
        digest: digest(&bytes),
        bytes: Arc::new(bytes),
        sends: None,
    }
}

fn digest(bytes: &[u8]) -> String {
    let mut sum = Command::new("sha256sum");
    sum.stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut sum = sum.spawn().unwrap();
    // It reads all before it writes anything.
    sum.stdin.take().unwrap().write_all(bytes).unwrap();
    let printed = sum.wait_with_output().unwrap().stdout;
    let printed = String::from_utf8(printed).unwrap();
    format!("sha256:{}", printed.split_whitespace().next().unwrap())
}

fn json_bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

/// Answers the requests of one connection.
fn serve(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    // A daemon tries TLS first, whose first byte is none of HTTP's.
    if reader.fill_buf()?.first() == Some(&0x16) {
        return Ok(());
    }
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let mut words = head.split_whitespace();
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let path = path.trim_start_matches("/v2/");
        let path = path.trim_start_matches(REPOSITORY).trim_start_matches('/');
        let (manifest, blob, was_cut) = {
            let mut state = state.lock().unwrap();
            state.asked.push(format!("{method} {path}"));
            let manifest = path.strip_prefix("manifests/");
            let manifest = manifest.and_then(|name| state.manifests.get(name).cloned());
            let blob = path.strip_prefix("blobs/");
            let blob = blob.and_then(|digest| state.blobs.get(digest).cloned());
            let sends = blob.as_ref().and_then(|blob| blob.sends);
            let cuts = sends == Some(Sends::HalfThenRefuses);
            let was_cut = cuts && std::mem::replace(&mut state.is_cut, true);
            (manifest, blob, was_cut)
        };
        match (manifest, blob) {
            (Some(manifest), _) => {
                head_of(&mut stream, 200, MANIFEST, &manifest)?;
                if method == "GET" {
                    stream.write_all(&manifest)?;
                }
            }
            (None, Some(_)) if was_cut => {
                let error = json!({"errors": [{"code": "DENIED", "message": "the token is over"}]});
                let error = json_bytes(&error);
                head_of(&mut stream, 403, "application/json", &error)?;
                stream.write_all(&error)?;
            }
            (None, Some(blob)) => {
                head_of(&mut stream, 200, "application/octet-stream", &blob.bytes)?;
                if method == "GET" && !send(&mut stream, &blob)? {
                    return Ok(());
                }
            }
            (None, None) => {
                let code = if path.is_empty() { 200 } else { 404 };
                head_of(&mut stream, code, "application/json", b"{}")?;
                stream.write_all(b"{}")?;
            }
        }
    }
}

fn head_of(stream: &mut TcpStream, code: u16, kind: &str, body: &[u8]) -> std::io::Result<()> {
    let digest = digest(body);
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {code} Labrun\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Docker-Content-Digest: {digest}\r\nDocker-Distribution-Api-Version: registry/2.0\r\n\r\n"
    )
}

/// Sends a blob as it is to be sent; `false` where the connection must end with it.
fn send(stream: &mut TcpStream, blob: &Blob) -> std::io::Result<bool> {
    match blob.sends {
        None => stream.write_all(&blob.bytes)?,
        Some(Sends::Garbled) => stream.write_all(&vec![7; blob.bytes.len()])?,
        Some(Sends::Slowly) => {
            for piece in blob.bytes.chunks(PIECE_BYTES) {
                stream.write_all(piece)?;
                thread::sleep(PAUSE);
            }
        }
        Some(Sends::HalfThenRefuses) => {
            stream.write_all(&blob.bytes[..blob.bytes.len() / 2])?;
            stream.shutdown(std::net::Shutdown::Both)?;
            return Ok(false);
        }
    }
    Ok(true)
}
