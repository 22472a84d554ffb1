//! Copies a log line by line: secrets masked, no line longer than what is worth reading.

use std::io::{self, BufRead, Write};

use super::mask;
use crate::bounded::{MAX_LINE_BYTES, read_line};
use crate::foreign::{visible, without_colours};

/// The most lines of a private key.
const MAX_KEY_LINES: u32 = 300;

/// Copies `from` to `to`. Whatever parts the log came in, a secret is seen whole: lines are put
/// together first. Of a line that is too long, a note states how much was left out.
pub(crate) fn copy(from: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
    // A secret that begins within the limit is read to its end.
    let most = MAX_LINE_BYTES + super::longest();
    let mut line = Vec::new();
    let mut key_lines = 0;
    loop {
        line.clear();
        let left_out = read_line(from, &mut line, most)?;
        if line.is_empty() {
            return to.flush();
        }
        let ends = line.ends_with(b"\n");
        let text = String::from_utf8_lossy(&line);
        let text = without_colours(text.trim_end_matches('\n'));
        let (masked, cut) = masked(&text, &mut key_lines);
        to.write_all(visible(&masked).as_bytes())?;
        let left_out = left_out + cut;
        if left_out > 0 {
            write!(to, "... (labrun left out {left_out} bytes of this line)")?;
        }
        if ends || left_out > 0 {
            to.write_all(b"\n")?;
        }
    }
}

/// The line without its secrets, and how many bytes beyond the limit were cut off.
fn masked(line: &str, key_lines: &mut u32) -> (String, usize) {
    let mut text = mask(line).into_owned();
    if *key_lines > 0 {
        *key_lines -= 1;
        text = without_key_line(&text);
    }
    if line.contains("-----BEGIN ") && line.contains("PRIVATE KEY") && !line.contains("-----END ") {
        *key_lines = MAX_KEY_LINES;
    }
    if line.contains("-----END ") {
        *key_lines = 0;
    }
    let mut end = text.len().min(MAX_LINE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let cut = text.len() - end;
    text.truncate(end);
    (text, cut)
}

/// A line of a private key, behind whatever prefix a logger gave it.
fn without_key_line(line: &str) -> String {
    let is_digit = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let words = line.split_inclusive(|c: char| !is_digit(c));
    words
        .map(|word| {
            let key = word.trim_end_matches(|c: char| !is_digit(c));
            let is_key = key.len() >= 16;
            if is_key {
                word.replacen(key, super::MASK, 1)
            } else {
                word.to_owned()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::super::remember;
    use super::*;

    fn copied(log: &[u8], parts: usize) -> String {
        let mut out = Vec::new();
        copy(&mut BufReader::with_capacity(parts, log), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_value_is_masked_wherever_the_log_is_cut_into_parts() {
        remember("split-over-two-reads");
        let log = "a split-over-two-reads b\nlast split-over-two-reads";
        for parts in 1..log.len() {
            assert_eq!(copied(log.as_bytes(), parts), "a *** b\nlast ***");
        }
    }

    #[test]
    fn a_line_without_an_end_is_bounded_and_a_secret_at_the_cut_is_masked() {
        remember("secret-at-the-very-cut");
        let mut log = vec![b'x'; MAX_LINE_BYTES - 8];
        log.extend_from_slice(b"secret-at-the-very-cut");
        log.extend_from_slice(&vec![b'y'; 3 << 20]);
        log.extend_from_slice(b"\nnext\n");
        let text = copied(&log, 8192);
        assert!(text.len() < MAX_LINE_BYTES + 100, "{}", text.len());
        assert!(!text.contains("secret-a"));
        assert!(
            text.ends_with("bytes of this line)\nnext\n"),
            "{}",
            &text[text.len() - 80..]
        );
    }

    #[test]
    fn a_private_key_is_masked_line_by_line() {
        let log = "(w pid=1) -----BEGIN RSA PRIVATE KEY-----\n(w pid=1) MIIEpAIBAAKCAQEA1c7+9z5Pad7O\n\
                   (w pid=1) -----END RSA PRIVATE KEY-----\n0123456789abcdef0123 stays\n";
        let text = copied(log.as_bytes(), 100);
        assert!(!text.contains("MIIEpA"), "{text}");
        assert!(text.ends_with("0123456789abcdef0123 stays\n"), "{text}");
    }

    #[test]
    fn what_a_terminal_would_obey_is_written_out() {
        assert_eq!(
            copied(b"a\x1b]0;x\x07\x1b[32mb\x1b[0m\n", 100),
            "a\\x1b]0;x\\x07b\n"
        );
    }
}
