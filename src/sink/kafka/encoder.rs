//! Rows to records for one topic: keys, values, headers, and the partition that each belongs to.
//!
//! It deliberately sends nothing and keeps nothing: the same rows of the same batch give the same records, however
//! often and in whatever pieces they are encoded.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::KafkaSinkSettings;
use super::partitioner::{Partitioner, keyless};
use crate::error::Result;
use crate::sink::encode::{HeaderReader, KeyEncoder, Records, ValueEncoder};
use crate::time::BatchId;

/// Rows to records.
#[derive(Debug)]
pub(super) struct Encoder {
    key: KeyEncoder,
    value: ValueEncoder,
    headers: HeaderReader,
    partitioner: Partitioner,
    partitions: i32,
}

impl Encoder {
    /// An encoder for rows of `schema`, to be told how many partitions there are.
    pub(super) fn new(settings: &KafkaSinkSettings, schema: &Schema) -> Result<Self> {
        let headers = HeaderReader::new(schema, &settings.headers)?;
        let value = ValueEncoder::new(schema, &settings.value, headers.column())?;
        let key = KeyEncoder::new(schema, &settings.key)?;
        Ok(Self { key, value, headers, partitioner: settings.partitioner, partitions: 1 })
    }

    /// The same for a topic of so many partitions.
    pub(super) fn spread_over(self, partitions: i32) -> Self {
        Self { partitions, ..self }
    }

    /// How many partitions there are.
    pub(super) fn partitions(&self) -> i32 {
        self.partitions
    }

    /// Room for records.
    pub(super) fn records(&self) -> Records {
        Records::with_headers(self.headers.constant())
    }

    /// Appends `rows`, the first of which is the row number `first` of its batch.
    pub(super) fn append(
        &self,
        batch: BatchId,
        rows: &RecordBatch,
        first: u64,
        out: &mut Records,
    ) -> Result<()> {
        self.key.encode(rows, out.keys())?;
        self.value.encode(rows, out.values())?;
        if let Some(headers) = self.headers.of(rows) {
            out.push_headers(&headers, rows.num_rows());
        }
        out.place(rows.num_rows(), |row, key| match key {
            Some(key) => self.partitioner.partition(key, self.partitions),
            None => keyless(batch, first + row, self.partitions),
        });
        Ok(())
    }
}
