//! Rendering: from the parts of an event to one line of text. Pure.

use std::{
    error::Error,
    fmt::{self, Write},
};

use jiff::Timestamp;
use tracing::{
    Level,
    field::{Field, Visit},
};

use super::{Format, Record};
use crate::error;

/// What every line starts with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    pub(super) time: Timestamp,
    pub(super) level: Level,
    pub(super) target: &'a str,
}

/// Appends the fields of one event or span to a line.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    out: &'a mut String,
    format: Format,
    /// What stands before the next field.
    separator: &'static str,
}

/// Appends the message of an event to a line, and nothing else of it.
#[derive(Debug)]
pub(super) struct Message<'a> {
    out: &'a mut String,
    format: Format,
}

/// Longest value that is printed, in bytes. It bounds a line, whatever a peer sends.
const MAX_VALUE: usize = 4096;

/// Longest name of a field of another process, in characters.
const MAX_NAME: usize = 64;

/// The field that the macros of `tracing` put the text of an event in.
const MESSAGE: &str = "message";

/// Opens a line: everything before the spans.
pub(super) fn open(out: &mut String, format: Format, head: Head<'_>) {
    let Head {
        time,
        level,
        target,
    } = head;
    let level = level_name(level);
    match format {
        Format::Plain => push(out, format_args!("{time:.6}\t{level}\t{target}")),
        Format::Json => {
            push(
                out,
                format_args!("{{\"level\":\"{level}\",\"time\":\"{time:.6}\",\"scope\":"),
            );
            quote(out, Style::Json, format_args!("{target}"));
            out.push_str(",\"message\":");
        }
    }
}

/// Closes a line.
pub(super) fn close(out: &mut String, format: Format) {
    out.push_str(match format {
        Format::Plain => "\n",
        Format::Json => "}\n",
    });
}

/// Renders a whole line that another process has logged.
pub(super) fn foreign(line: &mut String, format: Format, record: &Record<'_>) {
    let head = Head {
        // A time outside of what can be written is no time that anything was logged at.
        time: Timestamp::try_from(record.time).unwrap_or_default(),
        level: record.level,
        target: record.target,
    };
    open(line, format, head);
    if format == Format::Plain {
        line.push('\t');
    }
    Message::new(line, format).write(format_args!("{}", record.message));
    let mut fields = Fields::of_event(line, format);
    for (name, value) in record.fields {
        fields.foreign(name, value);
    }
    close(line, format);
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    /// The fields of an event, after its message.
    pub(super) fn of_event(out: &'a mut String, format: Format) -> Self {
        let separator = match format {
            Format::Plain => "\t",
            Format::Json => ",",
        };
        Self {
            out,
            format,
            separator,
        }
    }

    /// The fields of a span: `a=1 b=2` or `,"a":1,"b":2`. Called again to add fields recorded later.
    pub(super) fn of_span(out: &'a mut String, format: Format) -> Self {
        let separator = match format {
            Format::Plain if out.is_empty() => "",
            Format::Plain => " ",
            Format::Json => ",",
        };
        Self {
            out,
            format,
            separator,
        }
    }

    /// Begins a field; false if it is the message, which has its own place.
    fn key(&mut self, field: &Field) -> bool {
        let name = field.name();
        if name == MESSAGE {
            return false;
        }
        self.name(name);
        true
    }

    fn name(&mut self, name: &str) {
        self.out.push_str(self.separator);
        match self.format {
            Format::Plain => {
                self.out.push_str(name);
                self.out.push('=');
                self.separator = " ";
            }
            Format::Json => {
                // A field may not stand in for one of ours.
                let ours = matches!(name, "level" | "time" | "scope" | "spans" | "name");
                let prefix = if ours { "fields." } else { "" };
                push(self.out, format_args!("\"{prefix}{name}\":"));
            }
        }
    }

    /// Adds a field of another process, whose names are not ours: what stands in none of ours is replaced.
    fn foreign(&mut self, name: &str, value: &str) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let name = name.chars().take(MAX_NAME);
        let name: String = name.map(|c| if plain(c) { c } else { '_' }).collect();
        // The message has its own place, and a name is not nothing.
        match name.as_str() {
            MESSAGE | "" => self.name("field"),
            name => self.name(name),
        }
        quote(self.out, self.format.into(), format_args!("{value}"));
    }

    fn literal(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if self.key(field) {
            push(self.out, value);
        }
    }

    fn text(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if self.key(field) {
            quote(self.out, self.format.into(), value);
        }
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if self.format == Format::Json && !value.is_finite() {
            self.text(field, format_args!("{value}"));
        } else {
            self.literal(field, format_args!("{value}"));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.literal(field, format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.literal(field, format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.literal(field, format_args!("{value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.text(field, format_args!("{}", error::chain(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.key(field) {
            match self.format {
                Format::Plain => bare(self.out, format_args!("{value:?}")),
                Format::Json => quote(self.out, Style::Json, format_args!("{value:?}")),
            }
        }
    }
}

// === impl Message ===

impl<'a> Message<'a> {
    pub(super) fn new(out: &'a mut String, format: Format) -> Self {
        Self { out, format }
    }

    /// Appends `text` as the message.
    pub(super) fn write(&mut self, text: fmt::Arguments<'_>) {
        match self.format {
            Format::Plain => {
                escape(self.out, Style::Message, text);
            }
            Format::Json => quote(self.out, Style::Json, text),
        }
    }
}

impl Visit for Message<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE {
            self.write(format_args!("{value:?}"));
        }
    }
}

// === escaping ===

/// What has to be escaped where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// The message of a plain line: what could break the line or mislead a terminal.
    Message,
    /// A quoted value of a plain line: quotes and backslashes too.
    Quoted,
    /// A JSON string.
    Json,
}

/// Escapes what is written to it, up to [`MAX_VALUE`] bytes.
struct Escape<'a> {
    out: &'a mut String,
    style: Style,
    room: usize,
    cut: bool,
    /// Whether everything so far was visible, so that the value can stand without quotes.
    visible: bool,
}

fn push(out: &mut String, text: fmt::Arguments<'_>) {
    // Writing to a String fails only if a Display implementation does; the line then misses that part.
    let _ = out.write_fmt(text);
}

/// Appends the escaped text; true if it was all visible characters that needed no escape.
fn escape(out: &mut String, style: Style, text: fmt::Arguments<'_>) -> bool {
    let mut escape = Escape {
        out,
        style,
        room: MAX_VALUE,
        cut: false,
        visible: true,
    };
    let _ = escape.write_fmt(text);
    if escape.cut {
        escape.out.push('…');
    }
    escape.visible
}

fn quote(out: &mut String, style: Style, text: fmt::Arguments<'_>) {
    out.push('"');
    escape(out, style, text);
    out.push('"');
}

/// Appends the text as it is if it cannot be misread, quoted otherwise.
fn bare(out: &mut String, text: fmt::Arguments<'_>) {
    let start = out.len();
    let visible = escape(out, Style::Quoted, text);
    if !visible || out.len() == start {
        out.insert(start, '"');
        out.push('"');
    }
}

impl From<Format> for Style {
    fn from(format: Format) -> Self {
        match format {
            Format::Plain => Self::Quoted,
            Format::Json => Self::Json,
        }
    }
}

impl Escape<'_> {
    fn push(&mut self, c: char) {
        let short = match c {
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '"' if self.style != Style::Message => "\\\"",
            '\\' if self.style != Style::Message => "\\\\",
            _ if misleads(c) => return self.push_code(c),
            _ => {
                self.visible &= c != ' ';
                return self.out.push(c);
            }
        };
        self.visible = false;
        self.out.push_str(short);
    }

    fn push_code(&mut self, c: char) {
        self.visible = false;
        let code = u32::from(c);
        match self.style {
            // All characters that mislead are in the basic plane: four digits do.
            Style::Json => push(self.out, format_args!("\\u{code:04x}")),
            Style::Message | Style::Quoted => push(self.out, format_args!("\\u{{{code:x}}}")),
        }
    }
}

impl Write for Escape<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = text
            .get(..text.floor_char_boundary(self.room))
            .unwrap_or(text);
        self.cut |= fits.len() < text.len();
        self.room -= fits.len();
        // Nearly all text is of this kind and can be taken over as it is.
        if fits
            .bytes()
            .all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
        {
            self.visible &= !fits.contains(' ');
            self.out.push_str(fits);
        } else {
            fits.chars().for_each(|c| self.push(c));
        }
        Ok(())
    }
}

/// Characters that end a line, move a terminal's cursor or change the order in which text is shown.
fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
