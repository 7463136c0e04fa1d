//! A sink that prints the first rows of every batch, under Spark's header.
//!
//! It deliberately writes to whatever it is given and never to standard output itself: a notebook shows what is
//! written to Python's `sys.stdout` and nothing else.

use std::fmt;
use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::{SchemaRef, TimeUnit};
use arrow::util::display::FormatOptions;
use arrow::util::pretty::pretty_format_batches_with_options;

use super::callback::EmptyBatches;
use super::encode::text::{Zone, push_timestamp};
use super::transactional::Part;
use super::{Delivery, Sink};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::time::BatchTime;

const RULE: &str = "-------------------------------------------";

/// Prints, of every batch, the time and the first rows as a table; `...` where there are more.
///
/// ```
/// use tidemill::cancel::Cancel;
/// use tidemill::sink::pprint::PrintSink;
/// use tidemill::sink::{Sink, contract};
/// let mut sink = PrintSink::new(Box::new(std::io::stdout()), 10).titled(Some("readings".to_owned()));
/// sink.open(&contract::schema(), &Cancel::default())?;
/// sink.deliver(&contract::delivery(0, 0..20))?;
/// # Ok::<(), tidemill::error::Error>(())
/// ```
pub struct PrintSink {
    out: Box<dyn Write + Send>,
    rows: usize,
    title: Option<String>,
    empty: EmptyBatches,
}

impl PrintSink {
    /// A sink that prints the first `rows` of each batch that has any to `out`.
    pub fn new(out: Box<dyn Write + Send>, rows: usize) -> Self {
        Self { out, rows, title: None, empty: EmptyBatches::Skip }
    }

    /// Says in each header which of several streams the rows are of.
    #[must_use]
    pub fn titled(self, title: Option<String>) -> Self {
        Self { title, ..self }
    }

    /// Whether a batch without rows shows its time, as in Spark.
    #[must_use]
    pub fn with_empty(self, empty: EmptyBatches) -> Self {
        Self { empty, ..self }
    }
}

impl fmt::Debug for PrintSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrintSink({} rows)", self.rows)
    }
}

impl Sink for PrintSink {
    fn name(&self) -> &'static str {
        "pprint"
    }

    fn open(&mut self, _: &SchemaRef, _: &Cancel) -> Result<()> {
        Ok(())
    }

    /// Prints a batch in one write, so that the lines of two streams do not mix.
    fn deliver(&mut self, delivery: &Delivery) -> Result<()> {
        let text = self.page(delivery)?;
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        written.map_err(|error| Error::sink(format!("pprint cannot write: {error}")).caused_by(error))
    }

    fn wants_empty(&self) -> bool {
        self.empty == EmptyBatches::Deliver
    }

    fn part(&mut self) -> Part<'_> {
        Part::Shows
    }

    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

impl PrintSink {
    fn page(&self, delivery: &Delivery) -> Result<String> {
        let shown = first(&delivery.rows, self.rows);
        let title = self.title.as_ref().map_or_else(String::new, |title| format!(" ({title})"));
        let mut text = format!("{RULE}\nTime: {}{title}\n{RULE}\n", clock_text(delivery.time));
        if !shown.is_empty() {
            let options = FormatOptions::new().with_null("null").with_display_error(true);
            text += &pretty_format_batches_with_options(&shown, &options)?.to_string();
            text.push('\n');
        }
        if delivery.num_rows() > self.rows {
            text += "...\n";
        }
        Ok(text + "\n")
    }
}

fn first(chunks: &[RecordBatch], rows: usize) -> Vec<RecordBatch> {
    let mut left = rows;
    let mut shown = Vec::new();
    for chunk in chunks.iter().take_while(|_| rows > 0) {
        let taken = chunk.num_rows().min(left);
        left -= taken;
        if taken > 0 {
            shown.push(chunk.slice(0, taken));
        }
    }
    shown
}

/// As Python prints a `datetime`: six digits of the second where it is not whole.
fn clock_text(time: BatchTime) -> String {
    let mut text = Vec::new();
    push_timestamp(time.0, TimeUnit::Millisecond, Zone::Unsaid, &mut text);
    let text = String::from_utf8_lossy(&text).replacen('T', " ", 1);
    if text.contains('.') { text + "000" } else { text }
}
