//! HTTPS: the same load, the same records, through a TLS server with a private authority.

use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::support::{Ended, Lab, SimServer};

/// A certificate of `localhost` and 127.0.0.1, its key, and the authority that signed it: made for
/// these tests, good for nothing else.
const SERVER: &[u8] = include_bytes!("tls/server.pem");
const KEY: &[u8] = include_bytes!("tls/server.key");
const AUTHORITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/tls/ca.pem");

/// Speaks TLS in front of a plain server; returns its port. Its threads end with the test.
fn tls_in_front_of(upstream: u16) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = CertificateDer::from_pem_slice(SERVER).unwrap();
    let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            std::thread::spawn(move || relay(StreamOwned::new(connection, client), upstream));
        }
    });
    port
}

/// Passes requests on and their answers back, one after the other, until either side closes.
fn relay(mut client: StreamOwned<ServerConnection, TcpStream>, upstream: u16) -> Option<()> {
    let mut server = TcpStream::connect(("127.0.0.1", upstream)).ok()?;
    server.set_nodelay(true).ok()?;
    client.sock.set_nodelay(true).ok()?;
    loop {
        pass(&mut client, |part| server.write_all(part).ok())?;
        pass(&mut server, |part| {
            client.write_all(part).ok()?;
            client.flush().ok()
        })?;
    }
}

/// Passes one message on, part by part as it comes.
fn pass(from: &mut impl Read, mut to: impl FnMut(&[u8]) -> Option<()>) -> Option<()> {
    let (mut message, mut part) = (Vec::new(), [0; 16_384]);
    while !is_whole(&message) {
        let count = from.read(&mut part).ok().filter(|count| *count > 0)?;
        message.extend_from_slice(&part[..count]);
        to(&part[..count])?;
    }
    Some(())
}

fn is_whole(message: &[u8]) -> bool {
    let text = String::from_utf8_lossy(message);
    let Some((head, _)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().unwrap())
    });
    match length {
        Some(length) => message.len() >= head.len() + 4 + length,
        None if head.starts_with("GET") => true,
        None => message.ends_with(b"\r\n0\r\n\r\n"),
    }
}

fn bench(lab: &Lab, url: &str, trusted: Option<&str>) -> Ended {
    let mut command = lab.command(&[
        "bench",
        url,
        "--model",
        "sim",
        "--prompt-len",
        "64",
        "--gen-len",
        "6",
        "--concurrency",
        "3",
        "--num-requests",
        "12",
        "--seed",
        "42",
        "--json",
    ]);
    command
        .env_remove("SSL_CERT_FILE")
        .env_remove("SSL_CERT_DIR");
    if let Some(file) = trusted {
        command.env("SSL_CERT_FILE", file);
    }
    Ended::of(&command.output().unwrap())
}

fn json(ended: Ended) -> Value {
    serde_json::from_str(&ended.expect_code(0).stdout).unwrap()
}

#[test]
fn https_gives_the_same_records_as_http() {
    let lab = Lab::new();
    // One server each: a second load of the same seed would be answered from the first one's cache.
    let (plain, behind) = (SimServer::start(&lab), SimServer::start(&lab));
    let over_http = json(bench(&lab, &plain.url(), None));
    let port = tls_in_front_of(behind.port);
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("https://{host}:{port}");
        let over_https = json(bench(&lab, &url, Some(AUTHORITY)));
        for field in [
            "corpus",
            "counts",
            "errors",
            "coordinates",
            "prompt_tokens_mean",
        ] {
            assert_eq!(over_https[field], over_http[field], "{field} over {url}");
        }
        assert_eq!(over_https["counts"]["ok"], 12);
        let of = |metric: &str, figure: &str| over_https["latencies"][metric][figure].as_f64();
        for metric in ["ttft_ms", "e2e_ms", "tpot_ms"] {
            let counted = &over_http["latencies"][metric]["n"];
            assert_eq!(&over_https["latencies"][metric]["n"], counted, "{metric}");
        }
        for figure in ["mean", "p50"] {
            let (first, last) = (
                of("ttft_ms", figure).unwrap(),
                of("e2e_ms", figure).unwrap(),
            );
            assert!(0.0 < first && first < last, "{figure}: {first} and {last}");
        }
        assert_eq!(over_https["client"]["kernel_stamped_percent"], 0.0);
    }
    assert!(over_http["client"]["kernel_stamped_percent"].as_f64() > Some(0.0));
}

#[test]
fn a_certificate_that_is_not_trusted_is_refused_with_advice() {
    let lab = Lab::new();
    let behind = SimServer::start(&lab);
    let url = format!("https://127.0.0.1:{}", tls_in_front_of(behind.port));
    let ended = bench(&lab, &url, None).expect_code(1);
    for word in ["certificate", "SSL_CERT_FILE", "12 of 12 requests failed"] {
        assert!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
    }
}
