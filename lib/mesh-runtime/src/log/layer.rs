//! The tracing layer: renders events, and the spans they happened in, into the writer's queue.

use std::{cell::Cell, fmt};

use jiff::Timestamp;
use tracing::{
    Event, Level, Subscriber,
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    layer::Context,
    registry::{LookupSpan, Scope, SpanRef},
};

use super::{
    Format,
    format::{self, Fields, Head, Message},
    writer::{Notice, Producer},
};

/// Turns events into lines.
pub(super) struct Lines {
    format: Format,
    output: Producer,
    now: fn() -> Timestamp,
}

/// The fields of a span, rendered when they were recorded.
struct SpanFields(String);

/// Larger buffers are not kept between events.
const KEPT_CAPACITY: usize = 16 * 1024;

thread_local! {
    /// The line under construction. Taken while in use, so that an event logged by a value's own
    /// Display implementation gets a fresh one.
    static LINE: Cell<String> = const { Cell::new(String::new()) };
}

/// The line that stands for lines that were dropped.
pub(super) fn loss_notice(format: Format) -> Notice {
    Box::new(move |lost, line| {
        let head = Head {
            time: Timestamp::now(),
            level: Level::WARN,
            target: module_path!(),
        };
        format::open(line, format, head);
        if format == Format::Plain {
            line.push('\t');
        }
        Message::new(line, format).write(format_args!(
            "dropped {lost} log lines here: the output is slower than the log"
        ));
        format::close(line, format);
    })
}

// === impl Lines ===

impl Lines {
    pub(super) fn new(format: Format, output: Producer) -> Self {
        Self {
            format,
            output,
            now: Timestamp::now,
        }
    }

    #[cfg(test)]
    pub(super) fn with_clock(mut self, now: fn() -> Timestamp) -> Self {
        self.now = now;
        self
    }

    fn render<S>(&self, line: &mut String, event: &Event<'_>, context: &Context<'_, S>)
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let format = self.format;
        let head = Head {
            time: (self.now)(),
            level: *event.metadata().level(),
            target: event.metadata().target(),
        };
        let spans = || {
            context
                .event_scope(event)
                .into_iter()
                .flat_map(Scope::from_root)
        };
        format::open(line, format, head);
        match format {
            Format::Plain => {
                spans().for_each(|span| plain_span(line, &span));
                line.push('\t');
                event.record(&mut Message::new(line, format));
                event.record(&mut Fields::of_event(line, format));
            }
            Format::Json => {
                let start = line.len();
                event.record(&mut Message::new(line, format));
                if line.len() == start {
                    line.push_str("\"\"");
                }
                event.record(&mut Fields::of_event(line, format));
                json_spans(line, spans());
            }
        }
        format::close(line, format);
    }
}

impl<S> Layer<S> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut text = String::new();
            attributes.record(&mut Fields::of_span(&mut text, self.format));
            span.extensions_mut().insert(SpanFields(text));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<SpanFields>()
        {
            values.record(&mut Fields::of_span(&mut fields.0, self.format));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        // A thread that is ending has no buffer any more; its last words get a new one.
        let mut line = LINE.try_with(Cell::take).unwrap_or_default();
        self.render(&mut line, event, &context);
        self.output.push(line.as_bytes());
        if line.capacity() <= KEPT_CAPACITY {
            line.clear();
            let _ = LINE.try_with(|kept| kept.set(line));
        }
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines")
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

fn plain_span<'a, S: LookupSpan<'a>>(line: &mut String, span: &SpanRef<'a, S>) {
    line.push(':');
    line.push_str(span.name());
    if let Some(SpanFields(fields)) = span.extensions().get()
        && !fields.is_empty()
    {
        line.extend(["{", fields, "}"]);
    }
}

fn json_spans<'a, S: LookupSpan<'a> + 'a>(
    line: &mut String,
    spans: impl Iterator<Item = SpanRef<'a, S>>,
) {
    let mut separator = ",\"spans\":[";
    for span in spans {
        line.extend([separator, "{\"name\":\"", span.name(), "\""]);
        if let Some(SpanFields(fields)) = span.extensions().get() {
            line.push_str(fields);
        }
        line.push('}');
        separator = ",";
    }
    if separator == "," {
        line.push(']');
    }
}
