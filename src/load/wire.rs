//! A request as its bytes.

use std::io::{self, IoSlice};

use super::link::Link;
use crate::workload::Keep;

/// What is written, and what is expected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire<'a> {
    pub(crate) head: &'a [u8],
    pub(crate) body: &'a [u8],
    pub(crate) keep: Keep,
    pub(crate) gen_len: u32,
}

/// Writes head and body, in one system call where they fit.
pub(crate) async fn write_all(
    link: &mut Link,
    wire: Wire<'_>,
    written: &mut usize,
) -> io::Result<()> {
    let (mut head, mut body) = (wire.head, wire.body);
    while !head.is_empty() || !body.is_empty() {
        let count = link
            .write_vectored(&[IoSlice::new(head), IoSlice::new(body)])
            .await?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        *written += count;
        let of_head = count.min(head.len());
        head = &head[of_head..];
        body = &body[count - of_head..];
    }
    Ok(())
}
