//! Files: whole or not there, replaced by the same batch and by no other, and swept up after a crash.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, IntervalUnit, Schema, SchemaRef, UnionFields, UnionMode};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tidemill::cancel::Cancel;
use tidemill::error::ErrorKind;
use tidemill::sink::contract::{self, Breakable, Broken, Fixture, Row, delivery};
use tidemill::sink::files::{FileFormat, FileSink, FileSinkSettings, read_output};
use tidemill::sink::marker::{Epoch, Marker, Owner};
use tidemill::sink::outputs::{Outputs, PreparedBatch};
use tidemill::sink::{Delivery, Sink};
use tidemill::time::BatchTime;

/// A directory of its own, removed at the end.
pub(super) struct Place {
    pub(super) settings: FileSinkSettings,
}

impl Place {
    pub(super) fn new(format: FileFormat) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidemill-files-{}-{number}", std::process::id()));
        Self { settings: FileSinkSettings { format, ..FileSinkSettings::new(path) } }
    }

    fn path(&self) -> &Path {
        &self.settings.path
    }

    fn opened(&self) -> FileSink {
        let mut sink = FileSink::new(self.settings.clone());
        sink.open(&contract::schema(), &Cancel::default()).unwrap();
        sink
    }

    /// The files that manifests name.
    fn published_files(&self) -> Vec<PathBuf> {
        read_output(self.path()).unwrap_or_default().into_iter().flat_map(|output| output.paths).collect()
    }

    /// The column `row` of what manifests name.
    pub(super) fn published(&self) -> Vec<i64> {
        numbers_of(&self.published_files())
    }

    /// What is in the directory, hidden files too, by name.
    fn files(&self) -> Vec<PathBuf> {
        files_below(self.path())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.path());
    }
}

fn files_below(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// The rows of a file.
fn rows_of(path: &Path) -> Vec<Row> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("parquet") => parquet_rows(path).iter().flat_map(super::rows_of).collect(),
        Some("json") => lines(path).iter().map(|line| of_json(line)).collect(),
        Some("csv") => lines(path).iter().skip(1).map(|line| of_csv(line)).collect(),
        _ => panic!("{} is no finished file", path.display()),
    }
}

fn of_json(line: &str) -> Row {
    let row: serde_json::Value = serde_json::from_str(line).unwrap();
    (row["row"].as_i64().unwrap(), row["text"].as_str().map(str::to_owned))
}

fn of_csv(line: &str) -> Row {
    let (row, text) = line.split_once(',').unwrap();
    (row.parse().unwrap(), Some(text.to_owned()).filter(|text| !text.is_empty()))
}

/// The numbers of the rows of all files, in order of the files; the texts may be names of directories.
fn numbers_of(files: &[PathBuf]) -> Vec<i64> {
    let numbers_in = |path: &PathBuf| match path.extension() {
        Some(extension) if extension == "parquet" => parquet_rows(path).iter().flat_map(numbers).collect(),
        _ => rows_of(path).into_iter().map(|(row, _)| row).collect::<Vec<_>>(),
    };
    files.iter().flat_map(numbers_in).collect()
}

fn parquet_rows(path: &Path) -> Vec<RecordBatch> {
    let file = fs::File::open(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    reader.map(|rows| rows.unwrap()).collect()
}

fn numbers(rows: &RecordBatch) -> Vec<i64> {
    rows.column(0).as_primitive::<Int64Type>().values().to_vec()
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

impl Fixture for Place {
    fn sink(&mut self) -> Box<dyn Sink> {
        Box::new(FileSink::new(self.settings.clone()))
    }

    fn arrived(&mut self) -> Vec<Row> {
        self.files().iter().flat_map(|path| rows_of(path)).collect()
    }

    fn refused(&self) -> Option<SchemaRef> {
        let interval = Field::new("i", DataType::Interval(IntervalUnit::DayTime), true);
        let union = DataType::Union(UnionFields::try_new([0], [interval]).unwrap(), UnionMode::Dense);
        let odd = match self.settings.format {
            FileFormat::Parquet => DataType::Interval(IntervalUnit::MonthDayNano),
            FileFormat::Json | FileFormat::Csv => union,
        };
        Some(Schema::new(vec![Field::new("odd", odd, true)]).into())
    }

    /// The directory is somewhere else, and a file in its place: that stops the superuser too, as rights would not.
    fn set_broken(&mut self, broken: Broken) -> Breakable {
        let away = self.path().with_extension("away");
        match broken {
            Broken::Yes => {
                fs::rename(self.path(), &away).unwrap();
                fs::write(self.path(), "in the way").unwrap();
            }
            Broken::No => {
                fs::remove_file(self.path()).unwrap();
                fs::rename(&away, self.path()).unwrap();
            }
        }
        Breakable::Yes
    }
}

#[test]
fn the_file_sink_keeps_the_contract() {
    for format in [FileFormat::Parquet, FileFormat::Json, FileFormat::Csv] {
        contract::check(&mut Place::new(format));
    }
}

#[test]
fn a_batch_that_comes_again_replaces_its_files_and_no_other_batch_does() {
    let place = Place::new(FileFormat::Json);
    let mut sink = place.opened();
    sink.deliver(&delivery(1, 0..10)).unwrap();
    sink.deliver(&delivery(1, 0..10)).unwrap();
    assert_eq!(place.files().len(), 1);
    // The same number and time, as after a restart within a tick, but other records.
    sink.deliver(&delivery(1, 10..20)).unwrap();
    sink.deliver(&Delivery { time: BatchTime(5), ..delivery(1, 20..30) }).unwrap();
    let mut rows = numbers_of(&place.files());
    rows.sort_unstable();
    assert_eq!(rows, (0..30).collect::<Vec<_>>());
}

#[test]
fn a_large_batch_is_cut_into_files_of_the_size_that_was_asked_for() {
    for format in [FileFormat::Parquet, FileFormat::Json, FileFormat::Csv] {
        let mut place = Place::new(format);
        place.settings.max_bytes = 20_000;
        place.opened().deliver(&delivery(1, 0..20_000)).unwrap();
        let files = place.files();
        assert!(files.len() > 2, "{format}: {} files", files.len());
        assert_eq!(numbers_of(&files), (0..20_000).collect::<Vec<_>>());
    }
}

#[test]
fn a_delivery_that_is_given_up_or_fails_leaves_nothing() {
    let mut place = Place::new(FileFormat::Csv);
    let mut sink = place.opened();
    let batch = delivery(1, 0..5_000);
    batch.cancel.cancel();
    let error = sink.deliver(&batch).unwrap_err();
    assert!(error.is_cancelled() && error.to_string().contains("0 of 5000 rows"), "{error}");
    assert!(place.files().is_empty());
    place.set_broken(Broken::Yes);
    let error = sink.deliver(&delivery(2, 0..10)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Sink);
    for part in ["could not create ", "a part of the path is a file", "to_files(", "batch 2"] {
        assert!(error.to_string().contains(part), "{part} is not in {error}");
    }
    place.set_broken(Broken::No);
    assert!(place.files().is_empty());
}

#[test]
fn what_a_crash_left_half_written_is_swept_up_and_nothing_else() {
    let place = Place::new(FileFormat::Csv);
    fs::create_dir_all(place.path()).unwrap();
    for name in [".tidemill-x.csv.tmp", ".notes", "kept.csv", "other.tmp"] {
        fs::write(place.path().join(name), "row,text\n").unwrap();
    }
    place.opened().close().unwrap();
    let names: Vec<_> = place.files().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, [".notes", "kept.csv", "other.tmp"]);
}

#[test]
fn a_directory_has_one_writer_at_a_time() {
    let place = Place::new(FileFormat::Csv);
    let mut first = place.opened();
    let mut second = FileSink::new(place.settings.clone());
    let error = second.open(&contract::schema(), &Cancel::default()).unwrap_err();
    assert!(error.is_config() && error.to_string().contains("no other stream writes to"), "{error}");
    first.close().unwrap();
    second.open(&contract::schema(), &Cancel::default()).unwrap();
}

#[test]
fn a_file_in_the_directorys_place_is_refused() {
    let place = Place::new(FileFormat::Csv);
    fs::write(place.path(), "mine").unwrap();
    for path in [place.path().to_owned(), place.path().join("below")] {
        let mut sink = FileSink::new(FileSinkSettings::new(path));
        let error = sink.open(&contract::schema(), &Cancel::default()).unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
    }
    assert_eq!(fs::read_to_string(place.path()).unwrap(), "mine");
    fs::remove_file(place.path()).unwrap();
}

#[test]
fn rows_are_in_the_directory_of_their_values_and_the_column_is_not_in_the_file() {
    let mut place = Place::new(FileFormat::Parquet);
    place.settings.partition_by = vec!["text".to_owned()];
    place.opened().deliver(&delivery(1, 0..7)).unwrap();
    let mut found: Vec<(String, Vec<i64>)> = Vec::new();
    for path in place.files() {
        let directory = path.parent().unwrap().strip_prefix(place.path()).unwrap();
        let rows = parquet_rows(&path);
        assert_eq!(rows[0].num_columns(), 1);
        found.push((directory.to_str().unwrap().to_owned(), rows.iter().flat_map(numbers).collect()));
    }
    let expected = [
        ("text=__HIVE_DEFAULT_PARTITION__", vec![0, 3, 6]),
        ("text=row%201", vec![1]),
        ("text=row%202", vec![2]),
        ("text=row%204", vec![4]),
        ("text=row%205", vec![5]),
    ];
    assert_eq!(found, expected.map(|(name, rows)| (name.to_owned(), rows)));
}

/// The same directory, where batches are published exactly once.
struct Once(Place);

impl Fixture for Once {
    fn sink(&mut self) -> Box<dyn Sink> {
        self.0.sink()
    }

    fn arrived(&mut self) -> Vec<Row> {
        let rows: Vec<Row> = self.0.published_files().iter().flat_map(|path| rows_of(path)).collect();
        assert_eq!(rows.len(), self.0.visible().len(), "the directory as it is shows other rows");
        rows
    }

    fn refused(&self) -> Option<SchemaRef> {
        self.0.refused()
    }

    fn set_broken(&mut self, _: Broken) -> Breakable {
        Breakable::No
    }
}

impl Place {
    /// The column `row` of all files that whoever looks at the directory takes for output.
    fn visible(&self) -> Vec<i64> {
        let is_output = |path: &PathBuf| !path.starts_with(self.path().join("_tidemill"));
        numbers_of(&self.files().into_iter().filter(is_output).collect::<Vec<_>>())
    }

    fn drafts(&self) -> usize {
        files_below(&self.path().join("_tidemill/drafts")).len()
    }
}

#[test]
fn the_file_sink_keeps_the_contract_of_what_publishes() {
    for format in [FileFormat::Parquet, FileFormat::Json, FileFormat::Csv] {
        contract::transactional::check(&mut Once(Place::new(format)));
    }
}

/// A driver that publishes files.
struct Driver {
    sink: FileSink,
    outputs: Outputs,
    epoch: Epoch,
}

impl Driver {
    fn new(place: &Place, epoch: u64) -> (Self, Option<Marker>) {
        Self::of("job", place, epoch).unwrap()
    }

    fn of(job: &str, place: &Place, epoch: u64) -> tidemill::error::Result<(Self, Option<Marker>)> {
        let mut sink = FileSink::new(place.settings.clone());
        let outputs = Outputs::of(&mut [&mut sink]).unwrap();
        outputs.open(&mut [&mut sink], &[contract::schema()], &Cancel::default())?;
        let owner = Owner { job: job.to_owned(), epoch: Epoch(epoch) };
        let marker = outputs.init(&mut [&mut sink], &owner, &Cancel::default())?;
        Ok((Self { sink, outputs, epoch: Epoch(epoch) }, marker))
    }

    fn prepare(&mut self, delivery: Delivery) -> PreparedBatch {
        self.outputs.prepare(&mut [&mut self.sink], &[delivery], self.epoch).unwrap()
    }

    fn publish(&mut self, batch: &PreparedBatch) -> tidemill::error::Result<()> {
        self.outputs.publish(&mut [&mut self.sink], batch, &[], &Cancel::default()).map(drop)
    }

    fn collect(&mut self) {
        self.outputs.collect(&mut [&mut self.sink]).unwrap();
    }
}

#[test]
fn a_decided_batch_is_published_by_another_driver_from_its_record_alone() {
    let mut place = Place::new(FileFormat::Parquet);
    place.settings.partition_by = vec!["text".to_owned()];
    let (mut driver, _) = Driver::new(&place, 1);
    let batch = driver.prepare(delivery(0, 0..7));
    drop(driver);
    let (mut next, marker) = Driver::new(&place, 2);
    assert_eq!((marker, place.visible().len()), (None, 0));
    let restored = next.outputs.restore(&mut [&mut next.sink], *batch.marker(), &batch.records()).unwrap();
    next.publish(&restored).unwrap();
    let mut rows = place.published();
    rows.sort_unstable();
    assert_eq!(rows, (0..7).collect::<Vec<_>>());
    assert_eq!(Driver::new(&place, 3).1, Some(*batch.marker()));
}

#[test]
fn a_prepared_file_that_has_changed_is_not_published() {
    let place = Place::new(FileFormat::Csv);
    let (mut driver, _) = Driver::new(&place, 1);
    let batch = driver.prepare(delivery(0, 0..7));
    let draft = files_below(&place.path().join("_tidemill/drafts")).remove(0);
    let mut bytes = fs::read(&draft).unwrap();
    bytes[20] ^= 1;
    fs::write(&draft, bytes).unwrap();
    let (mut next, _) = Driver::new(&place, 2);
    let restored = next.outputs.restore(&mut [&mut next.sink], *batch.marker(), &batch.records());
    assert!(restored.unwrap_err().to_string().contains("not those that were written"));
}

#[test]
fn a_driver_that_wakes_up_after_another_has_published_publishes_nothing() {
    let place = Place::new(FileFormat::Json);
    let (mut asleep, _) = Driver::new(&place, 1);
    let lost = asleep.prepare(delivery(5, 0..10));
    let (mut next, _) = Driver::new(&place, 2);
    // It has come to another outcome: batch 5 has no rows, and batch 6 is published.
    let batch = next.prepare(delivery(6, 10..20));
    next.publish(&batch).unwrap();
    next.collect();
    let error = asleep.publish(&lost).unwrap_err();
    assert!(error.is_fenced() && error.needs_take_over(), "{error}");
    assert_eq!(place.published(), (10..20).collect::<Vec<_>>());
}

#[test]
fn what_was_prepared_in_vain_goes_once_nobody_can_publish_it() {
    let place = Place::new(FileFormat::Json);
    let (mut first, _) = Driver::new(&place, 1);
    let batch = first.prepare(delivery(0, 0..10));
    first.publish(&batch).unwrap();
    first.prepare(delivery(1, 10..20));
    let (mut next, _) = Driver::new(&place, 2);
    next.collect();
    assert_eq!(place.drafts(), 1, "the other driver may still publish it");
    let batch = next.prepare(delivery(1, 10..20));
    let ahead = next.prepare(delivery(2, 20..30));
    next.publish(&batch).unwrap();
    next.collect();
    assert_eq!(place.drafts(), 1);
    next.publish(&ahead).unwrap();
    next.collect();
    assert_eq!((place.drafts(), place.published()), (0, (0..30).collect()));
}

/// A crash between the put of a manifest and the last name of a file.
#[test]
fn a_manifest_counts_before_its_files_have_their_names_and_the_next_driver_gives_them() {
    let place = Place::new(FileFormat::Csv);
    let (mut driver, _) = Driver::new(&place, 1);
    let batch = driver.prepare(delivery(0, 0..10));
    driver.publish(&batch).unwrap();
    let [file] = <[PathBuf; 1]>::try_from(read_output(place.path()).unwrap().remove(0).paths).unwrap();
    let manifest = fs::read_to_string(place.path().join(format!("_tidemill/manifests/{:020}", 0))).unwrap();
    let draft = manifest.split(' ').find(|word| word.contains(".tmp")).unwrap();
    fs::rename(&file, place.path().join("_tidemill/drafts").join(draft)).unwrap();
    assert_eq!(place.visible().len(), 0);
    assert_eq!(read_output(place.path()).unwrap()[0].rows, 10);
    Driver::new(&place, 2);
    assert_eq!(place.visible().len(), 10);
}

#[test]
fn a_directory_belongs_to_one_job() {
    let place = Place::new(FileFormat::Csv);
    Driver::new(&place, 1);
    let error = Driver::of("another", &place, 1).err().unwrap();
    assert!(
        error.is_config() && error.to_string().contains("job another alone, found that of job job"),
        "{error}"
    );
}

#[test]
fn a_damaged_manifest_is_an_error_with_its_name_and_not_an_absent_one() {
    let place = Place::new(FileFormat::Csv);
    let (mut driver, _) = Driver::new(&place, 1);
    let batch = driver.prepare(delivery(0, 0..10));
    driver.publish(&batch).unwrap();
    let path = place.path().join(format!("_tidemill/manifests/{:020}", 0));
    let mut bytes = fs::read(&path).unwrap();
    bytes[30] ^= 1;
    fs::write(&path, bytes).unwrap();
    for error in [Driver::of("job", &place, 2).err().unwrap(), read_output(place.path()).unwrap_err()] {
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}
