//! What goes between a coordinator and the children that render: frames of JSON behind their length.

use std::io::{self, Read, Write};

use gainsay_text::{ChatMessage, ChatTemplate, MAX_PROMPT_BYTES, TemplateError, UnixSeconds};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Bytes of a frame: JSON may need six for one.
pub(super) const MAX_FRAME: usize = 6 * MAX_PROMPT_BYTES + (1 << 20);

/// Something to render, or to compile alone.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    /// The template's file.
    pub(super) file: String,
    /// The conversation; none where the template is to be compiled, and no more.
    pub(super) messages: Option<Vec<ChatMessage>>,
    /// Seconds since 1970.
    pub(super) now: i64,
}

/// The prompt; an empty one where there was nothing to render.
pub(super) type Answer = Result<String, TemplateError>;

impl Task {
    /// Does it, in this process.
    pub(super) fn run(self) -> Answer {
        let template = ChatTemplate::from_json(self.file.as_bytes())?;
        match self.messages {
            Some(messages) => template.render(&messages, UnixSeconds(self.now)),
            None => Ok(String::new()),
        }
    }
}

/// A message as a frame.
pub(super) fn frame(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; size_of::<u32>()];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - size_of::<u32>();
    if length > MAX_FRAME {
        return Err(too_long());
    }
    frame[..size_of::<u32>()].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// The length that a frame states.
pub(super) fn length(head: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(head) as usize;
    if length <= MAX_FRAME { Ok(length) } else { Err(too_long()) }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a frame is too long")
}

/// Reads a message; none at the end of the input.
pub(super) fn read<T: DeserializeOwned>(input: &mut impl Read) -> io::Result<Option<T>> {
    let mut head = [0; 4];
    match input.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut body = vec![0; length(head)?];
    input.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}

/// Writes a message.
pub(super) fn write(output: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    output.write_all(&frame(message)?)?;
    output.flush()
}
