//! Server-sent events, read as the HTML standard says: lines, blocks that end with an empty line, and an id that stays
//! until there is another one.

use std::time::Duration;

use anyhow::bail;

/// Nothing that Checkback sends is longer.
const LONGEST: usize = 1 << 20;

#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    pub id: String,
    pub event: String,
    pub data: String,
}

#[derive(Debug, Default)]
pub struct Parser {
    buffer: Vec<u8>,
    id: String,
    /// Counts when its block has ended: of a half one nothing was seen.
    next_id: Option<String>,
    event: String,
    data: Option<String>,
    /// What the server wants to be waited for before the next connection.
    pub retry: Option<Duration>,
}

impl Parser {
    /// With what to come back; empty before the first id.
    pub fn last_id(&self) -> &str {
        &self.id
    }

    /// Forgets the rest of a connection that was lost, and no more.
    pub fn reconnect(&mut self) {
        self.buffer.clear();
        self.next_id = None;
        self.event.clear();
        self.data = None;
    }

    /// The messages that end in `piece`.
    pub fn push(&mut self, piece: &[u8]) -> anyhow::Result<Vec<Message>> {
        self.buffer.extend_from_slice(piece);
        let mut messages = Vec::new();
        let mut start = 0;
        while let Some(length) = self.buffer[start..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.buffer[start..start + length]).into_owned();
            start += length + 1;
            messages.extend(self.line(line.strip_suffix('\r').unwrap_or(&line)));
        }
        self.buffer.drain(..start);
        if self.buffer.len() + self.data.as_ref().map_or(0, String::len) > LONGEST {
            bail!("what the service sends is not of Checkback: an event has no end");
        }
        Ok(messages)
    }

    fn line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            self.id = self.next_id.take().unwrap_or_else(|| std::mem::take(&mut self.id));
            let event = std::mem::take(&mut self.event);
            let data = self.data.take()?;
            return Some(Message { id: self.id.clone(), event, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" if !value.contains('\0') => self.next_id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.event),
            "data" => match &mut self.data {
                None => self.data = Some(value.to_owned()),
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
            },
            "retry" => self.retry = value.parse().ok().map(Duration::from_millis).or(self.retry),
            // A comment, or a field of a newer standard.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str, event: &str, data: &str) -> Message {
        Message { id: id.into(), event: event.into(), data: data.into() }
    }

    #[test]
    fn messages_are_the_same_wherever_the_pieces_end() {
        let text = "retry: 2000\nid: 6\n\nid: 7\nevent: verdict\ndata: {\"é\":\ndata: 1}\n\n: all is well\nid: 8\n\n\
                    data:x\r\n\r\nevent: lost\n";
        let expected = [message("7", "verdict", "{\"é\":\n1}"), message("8", "", "x")];
        for length in 1..text.len() {
            let mut parser = Parser::default();
            let pieces = text.as_bytes().chunks(length);
            let messages: Vec<Message> = pieces.flat_map(|piece| parser.push(piece).unwrap()).collect();
            assert_eq!(messages, expected, "{length}");
            assert_eq!((parser.last_id(), parser.retry), ("8", Some(Duration::from_secs(2))));
        }
    }

    #[test]
    fn a_lost_connection_leaves_the_last_id_and_nothing_of_a_half_message() {
        let mut parser = Parser::default();
        parser.push(b"id: 7\ndata: a\n\nid: 8\ndata: half").unwrap();
        parser.reconnect();
        assert_eq!(parser.push(b"data: b\n\n").unwrap(), [message("7", "", "b")]);
    }

    #[test]
    fn what_never_ends_is_given_up() {
        let mut parser = Parser::default();
        let endless = vec![b'x'; LONGEST];
        assert!(parser.push(&endless).is_ok() && parser.push(b"x").is_err());
    }
}
