//! Lines in and lines out. A line is bounded on the way in, and is one line on the way out
//! whatever blanks its JSON holds.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

/// What the input gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// One line, without its end.
    Text(Bytes),
    /// A line longer than allowed, skipped to its end.
    TooLong,
    /// The input is closed. A last line without an end came before, as [`Line::Text`].
    End,
}

/// Reads the next line that is not blank.
pub(super) async fn read<R: AsyncBufRead + Unpin>(input: &mut R, limit: usize) -> io::Result<Line> {
    let mut line = BytesMut::new();
    let mut too_long = false;
    loop {
        let chunk = input.fill_buf().await?;
        let at_end = chunk.is_empty();
        let newline = memchr::memchr(b'\n', chunk);
        let part = chunk.get(..newline.unwrap_or(chunk.len())).unwrap_or_default();
        too_long |= line.len() + part.len() > limit;
        if too_long {
            line.clear();
        } else {
            line.extend_from_slice(part);
        }
        let used = newline.map_or(chunk.len(), |at| at + 1);
        input.consume(used);
        if newline.is_none() && !at_end {
            continue;
        }
        if too_long {
            return Ok(Line::TooLong);
        }
        if !line.trim_ascii().is_empty() {
            return Ok(Line::Text(line.freeze()));
        }
        if at_end {
            return Ok(Line::End);
        }
        line.clear();
    }
}

/// Writes every message as one line until all senders are gone.
pub(super) async fn write_all<W: AsyncWrite + Unpin>(
    mut messages: mpsc::Receiver<Bytes>,
    mut output: W,
) -> io::Result<()> {
    while let Some(message) = messages.recv().await {
        output.write_all(&one_line(&message)).await?;
        // A burst is flushed once, a single message at once.
        if messages.is_empty() {
            output.flush().await?;
        }
    }
    output.flush().await
}

/// Line breaks in JSON can only stand between tokens, where a blank means the same.
fn one_line(message: &[u8]) -> Vec<u8> {
    let blank = |b: &u8| if matches!(b, b'\n' | b'\r') { b' ' } else { *b };
    let mut line: Vec<u8> = message.trim_ascii().iter().map(blank).collect();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncRead, AsyncReadExt as _, BufReader};

    use super::*;

    /// Bytes that arrive in pieces, cut at these places.
    fn pieces(bytes: &[u8], cuts: &[usize]) -> Box<dyn AsyncRead + Unpin> {
        let (mut rest, mut whole): (_, Box<dyn AsyncRead + Unpin>) =
            (bytes, Box::new(tokio::io::empty()));
        for cut in cuts {
            let (piece, later) = rest.split_at(cut % (rest.len() + 1));
            whole = Box::new(whole.chain(io::Cursor::new(piece.to_vec())));
            rest = later;
        }
        Box::new(whole.chain(io::Cursor::new(rest.to_vec())))
    }

    async fn all(bytes: &[u8], cuts: &[usize]) -> Vec<Line> {
        let mut input = BufReader::new(pieces(bytes, cuts));
        let mut lines = Vec::new();
        loop {
            match read(&mut input, 12).await.unwrap() {
                Line::End => return lines,
                line => lines.push(line),
            }
        }
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_changes_nothing(
            bytes in "[a-c{}\r\n \u{e9}]{0,60}",
            cuts in proptest::collection::vec(any::<usize>(), 0..8),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (whole, cut) = runtime.block_on(async {
                (all(bytes.as_bytes(), &[]).await, all(bytes.as_bytes(), &cuts).await)
            });
            prop_assert_eq!(&whole, &cut);
            let texts = bytes.split('\n').filter(|line| !line.trim().is_empty());
            let expected: Vec<_> = texts
                .map(|line| if line.len() > 12 { Line::TooLong } else { Line::Text(line.to_owned().into()) })
                .collect();
            prop_assert_eq!(whole, expected);
        }
    }

    #[tokio::test]
    async fn long_lines_are_skipped_and_the_next_one_is_read() {
        let text = format!("{{}}\n\r\n{}\nlast", "x".repeat(100));
        let mut input = BufReader::with_capacity(7, text.as_bytes());
        assert_eq!(read(&mut input, 20).await.unwrap(), Line::Text("{}".into()));
        assert_eq!(read(&mut input, 20).await.unwrap(), Line::TooLong);
        assert_eq!(read(&mut input, 20).await.unwrap(), Line::Text("last".into()));
        assert_eq!(read(&mut input, 20).await.unwrap(), Line::End);
        assert_eq!(read(&mut input, 20).await.unwrap(), Line::End);
    }

    #[tokio::test]
    async fn pretty_printed_messages_become_one_line() {
        let (sender, receiver) = mpsc::channel(4);
        sender.send("{\r\n \"a\": 1\n}\n".into()).await.unwrap();
        sender.send("{}".into()).await.unwrap();
        drop(sender);
        let mut out = Vec::new();
        write_all(receiver, &mut out).await.unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "{   \"a\": 1 }\n{}\n");
    }
}
