//! Codings of a body, for servers that compress although no request asks for it.

use std::io::{self, Write};

use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// Compressed bytes that are decoded at once: they become a megabyte at most.
const PIECE_BYTES: usize = 1024;

/// How a body is coded.
#[derive(Debug)]
pub(crate) enum Coding {
    Plain,
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    /// `deflate` before its first byte: some servers send a zlib header, some do not.
    Deflate,
    Zlib(Box<ZlibDecoder<Vec<u8>>>),
    RawDeflate(Box<DeflateDecoder<Vec<u8>>>),
}

impl Coding {
    /// The coding that a header names.
    pub(crate) fn of(name: &str) -> Result<Self, String> {
        match name.trim().to_ascii_lowercase().as_str() {
            // The last two are no codings, but frameworks write them.
            "" | "identity" | "none" | "utf-8" => Ok(Self::Plain),
            "gzip" | "x-gzip" => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(Vec::new())))),
            "deflate" => Ok(Self::Deflate),
            other => Err(format!(
                "the answer is compressed (`{}`), which labrun does not decode: let the server, or \
                 the proxy before it, send it uncompressed",
                other.escape_debug()
            )),
        }
    }

    /// Decodes `bytes`; `sink` gets all that they hold.
    pub(crate) fn decode(
        &mut self,
        bytes: &[u8],
        sink: &mut impl FnMut(&[u8]),
    ) -> Result<(), String> {
        if let (Self::Deflate, Some(first)) = (&*self, bytes.first()) {
            // A zlib header names the method 8 and a window of up to 2^15 bytes.
            *self = if first & 0x0f == 8 && first >> 4 <= 7 {
                Self::Zlib(Box::new(ZlibDecoder::new(Vec::new())))
            } else {
                Self::RawDeflate(Box::new(DeflateDecoder::new(Vec::new())))
            };
        }
        for piece in bytes.chunks(PIECE_BYTES) {
            let decoded = match self {
                Self::Plain | Self::Deflate => {
                    sink(piece);
                    continue;
                }
                Self::Gzip(decoder) => pass(&mut **decoder, MultiGzDecoder::get_mut, piece, sink),
                Self::Zlib(decoder) => pass(&mut **decoder, ZlibDecoder::get_mut, piece, sink),
                Self::RawDeflate(decoder) => {
                    pass(&mut **decoder, DeflateDecoder::get_mut, piece, sink)
                }
            };
            decoded.map_err(|error| {
                format!("the answer is not compressed as its head states: {error}")
            })?;
        }
        Ok(())
    }
}

fn pass<D: Write>(
    decoder: &mut D,
    decoded: impl Fn(&mut D) -> &mut Vec<u8>,
    piece: &[u8],
    sink: &mut impl FnMut(&[u8]),
) -> io::Result<()> {
    decoder.write_all(piece)?;
    decoder.flush()?;
    let decoded = decoded(decoder);
    sink(decoded);
    decoded.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    /// Two events, each flushed as it is written.
    fn pressed<W: Write>(mut encoder: W, buffer: impl Fn(&W) -> &Vec<u8>) -> [Vec<u8>; 2] {
        let mut from = 0;
        [b"data: a\n\n", b"data: b\n\n"].map(|event| {
            encoder.write_all(event).unwrap();
            encoder.flush().unwrap();
            let piece = buffer(&encoder)[from..].to_vec();
            from += piece.len();
            piece
        })
    }

    #[test]
    fn each_event_comes_out_with_the_bytes_that_complete_it() {
        let level = Compression::default();
        for (name, pieces) in [
            (
                "identity",
                [b"data: a\n\n".to_vec(), b"data: b\n\n".to_vec()],
            ),
            (
                "gzip",
                pressed(GzEncoder::new(Vec::new(), level), GzEncoder::get_ref),
            ),
            (
                "deflate",
                pressed(ZlibEncoder::new(Vec::new(), level), ZlibEncoder::get_ref),
            ),
            (
                "Deflate ",
                pressed(
                    DeflateEncoder::new(Vec::new(), level),
                    DeflateEncoder::get_ref,
                ),
            ),
        ] {
            let mut coding = Coding::of(name).unwrap();
            let mut events = Vec::new();
            for piece in &pieces {
                let mut event = Vec::new();
                let mut sink = |bytes: &[u8]| event.extend_from_slice(bytes);
                coding.decode(piece, &mut sink).unwrap();
                events.push(String::from_utf8(event).unwrap());
            }
            assert_eq!(events, ["data: a\n\n", "data: b\n\n"], "{name}");
        }
    }

    #[test]
    fn what_cannot_be_decoded_is_named() {
        assert!(Coding::of("br").unwrap_err().contains("compressed (`br`)"));
        for plain in ["", "identity", "UTF-8", "none"] {
            assert!(matches!(Coding::of(plain), Ok(Coding::Plain)), "{plain}");
        }
        let mut gzip = Coding::of("gzip").unwrap();
        let error = gzip
            .decode(b"data: {\"choices\":[]}\n\n", &mut |_| {})
            .unwrap_err();
        assert!(
            error.contains("not compressed as its head states"),
            "{error}"
        );
    }
}
