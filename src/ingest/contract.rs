//! The suite that every source must pass; whoever writes a source can run it over theirs.
//!
//! It deliberately knows a source by its traits alone. A [`Fixture`] makes topics and writes to them by whatever
//! way the source's world has; [`check`] runs every case, each over a topic of its own. A case that does not hold
//! panics, as tests do; an error of the source comes back.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind, Result};
use crate::ingest::scripted::ScriptedRecord;
use crate::ingest::{Bound, Fetcher, Source};
use crate::offset::{Offset, OffsetRange, TopicPartition};
use crate::raw::{CHUNK_ROWS, RawChunk, RawColumns};

/// Makes the topics that the cases read.
pub trait Fixture {
    /// A fresh topic with `partitions` empty partitions, and a source that reads it.
    fn topic(&self, partitions: i32) -> Result<Box<dyn TestTopic>>;
}

/// A topic that a case writes while it reads it.
pub trait TestTopic {
    /// A source that reads the topic.
    fn source(&self) -> Result<Arc<dyn Source>>;

    /// The name under which the source knows partition `partition`.
    fn at(&self, partition: i32) -> TopicPartition;

    /// Appends `records` to `partition`; returns once they can be read.
    fn append(&self, partition: i32, records: &[ScriptedRecord]) -> Result<()>;

    /// Appends at least one offset without a record to `partition`; false where such a thing cannot be.
    fn append_hole(&self, partition: i32) -> Result<bool>;

    /// Removes what lies before `earliest`; false where such a thing cannot be.
    fn trim(&self, partition: i32, earliest: Offset) -> Result<bool>;

    /// Makes the topic have `partitions` partitions; false where their number is fixed.
    fn grow(&self, partitions: i32) -> Result<bool>;
}

/// How much memory a case grants a fetcher.
const BUDGET: usize = 64 << 20;

/// A time far longer than anything here takes: a wait this long has failed.
const FOREVER: Duration = Duration::from_secs(30);

/// Runs every case.
///
/// # Panics
/// Where the source does not do what the traits promise.
pub fn check(fixture: &dyn Fixture) -> Result<()> {
    for (name, case) in CASES {
        log::info!("contract of sources: {name}");
        case(fixture).map_err(|error| error.at(format!("contract case {name:?}")))?;
    }
    Ok(())
}

type Case = fn(&dyn Fixture) -> Result<()>;

/// Every case with its name, for who wants to run them one by one.
pub const CASES: &[(&str, Case)] = &[
    ("a range yields exactly its records in order", a_range_yields_exactly_its_records_in_order),
    ("chunks are cut from the start of the range", chunks_are_cut_from_the_start_of_the_range),
    ("empty ranges yield nothing", empty_ranges_yield_nothing),
    ("a range that ends in a hole ends", a_range_that_ends_in_a_hole_ends),
    ("consecutive ranges yield each record once", consecutive_ranges_yield_each_record_once),
    ("an earlier range yields the same bytes again", an_earlier_range_yields_the_same_bytes_again),
    ("new partitions are seen", new_partitions_are_seen),
    ("bounds mean offsets", bounds_mean_offsets),
    ("bounds that name the wrong partitions are refused", bounds_that_name_the_wrong_partitions_are_refused),
    ("what was acknowledged is where committed starts", what_was_acknowledged_is_where_committed_starts),
    ("records that are gone are a loss", records_that_are_gone_are_a_loss),
    ("a cancelled fetch ends and can be repeated", a_cancelled_fetch_ends_and_can_be_repeated),
    ("an error of the sink comes back and the fetch can be repeated", an_error_of_the_sink_comes_back),
    ("partitions move between fetchers", partitions_move_between_fetchers),
    ("columns are yielded where they are wanted", columns_are_yielded_where_they_are_wanted),
    ("arrivals wake and move the head", arrivals_wake_and_move_the_head),
];

fn a_range_yields_exactly_its_records_in_order(fixture: &dyn Fixture) -> Result<()> {
    let topic = fixture.topic(3)?;
    (0..3).try_for_each(|partition| topic.append(partition, &records(0..50)))?;
    let ranges = [range(&*topic, 0, 10, 30), range(&*topic, 1, 0, 50), range(&*topic, 2, 49, 49)];
    let rows = read(&mut *fetcher(&*topic)?, &ranges)?;
    assert_eq!(offsets(&rows, &topic.at(0)), (10..30).collect::<Vec<_>>());
    assert_eq!(offsets(&rows, &topic.at(1)), (0..50).collect::<Vec<_>>());
    assert!(offsets(&rows, &topic.at(2)).is_empty());
    assert!(rows.iter().all(|row| row.payload == records(row.offset..row.offset + 1).remove(0).payload));
    Ok(())
}

fn chunks_are_cut_from_the_start_of_the_range(fixture: &dyn Fixture) -> Result<()> {
    const RECORDS: i64 = 40_000;
    let topic = fixture.topic(1)?;
    topic.append(0, &records(0..RECORDS))?;
    let lengths = |fetcher: &mut dyn Fetcher, from, until| -> Result<Vec<usize>> {
        Ok(chunks(fetcher, &[range(&*topic, 0, from, until)])?.iter().map(RawChunk::len).collect())
    };
    let mut one = fetcher(&*topic)?;
    assert_eq!(lengths(&mut *one, 0, RECORDS)?, [CHUNK_ROWS, CHUNK_ROWS, 40_000 - 2 * CHUNK_ROWS]);
    assert_eq!(lengths(&mut *one, 0, 20_000)?, [CHUNK_ROWS, 20_000 - CHUNK_ROWS]);
    // What is left over from the range before must not shorten the first chunk of the next.
    assert_eq!(lengths(&mut *one, 20_000, RECORDS)?, [CHUNK_ROWS, 20_000 - CHUNK_ROWS]);
    assert_eq!(lengths(&mut *fetcher(&*topic)?, 20_000, RECORDS)?, [CHUNK_ROWS, 20_000 - CHUNK_ROWS]);
    Ok(())
}

fn empty_ranges_yield_nothing(fixture: &dyn Fixture) -> Result<()> {
    let topic = fixture.topic(2)?;
    topic.append(0, &records(0..10))?;
    let mut fetcher = fetcher(&*topic)?;
    assert!(read(&mut *fetcher, &[range(&*topic, 0, 4, 4), range(&*topic, 1, 0, 0)])?.is_empty());
    assert!(read(&mut *fetcher, &[range(&*topic, 0, 10, 10), range(&*topic, 1, 0, 0)])?.is_empty());
    assert!(read(&mut *fetcher, &[])?.is_empty());
    Ok(())
}

fn a_range_that_ends_in_a_hole_ends(fixture: &dyn Fixture) -> Result<()> {
    let topic = fixture.topic(1)?;
    topic.append(0, &records(0..5))?;
    if !topic.append_hole(0)? {
        return Ok(());
    }
    let end = latest(&*topic, 0)?;
    assert!(end.0 > 5, "a hole takes up offsets");
    let mut fetcher = fetcher(&*topic)?;
    assert_eq!(read(&mut *fetcher, &[range(&*topic, 0, 0, end.0)])?.len(), 5);
    topic.append(0, &records(0..2))?;
    let all = latest(&*topic, 0)?;
    assert_eq!(read(&mut *fetcher, &[range(&*topic, 0, end.0, all.0)])?.len(), 2);
    assert!(read(&mut *fetcher, &[range(&*topic, 0, 5, end.0)])?.is_empty());
    assert_eq!(read(&mut *fetcher, &[range(&*topic, 0, end.0, all.0)])?.len(), 2);
    Ok(())
}

fn consecutive_ranges_yield_each_record_once(fixture: &dyn Fixture) -> Result<()> {
    let topic = fixture.topic(2)?;
    (0..2).try_for_each(|partition| topic.append(partition, &records(0..3_000)))?;
    let mut fetcher = fetcher(&*topic)?;
    let mut rows = Vec::new();
    let cuts = [0, 1, 2, 10, 11, 500, 500, 2_999, 3_000];
    for step in cuts.windows(2) {
        let [from, until] = step else { continue };
        rows.extend(read(
            &mut *fetcher,
            &[range(&*topic, 0, *from, *until), range(&*topic, 1, *from, *until)],
        )?);
    }
    for partition in 0..2 {
        assert_eq!(offsets(&rows, &topic.at(partition)), (0..3_000).collect::<Vec<_>>());
    }
    Ok(())
}

fn an_earlier_range_yields_the_same_bytes_again(fixture: &dyn Fixture) -> Result<()> {
    let topic = fixture.topic(1)?;
    topic.append(0, &records(0..20_000))?;
    let mut fetcher = fetcher(&*topic)?;
    let first = read(&mut *fetcher, &[range(&*topic, 0, 0, 15_000)])?;
    for from in [0, 14_000, 3, 9_999, 0] {
        // Fetched ahead are by now later records: none of them may slip in.
        let again = read(&mut *fetcher, &[range(&*topic, 0, from, 15_000)])?;
        let skipped = usize::try_from(from).unwrap_or(0);
        assert!(again.iter().eq(first.iter().skip(skipped)), "the range from {from} differs when read again");
    }
    Ok(())
}

fn new_partitions_are_seen(fixture: &dyn Fixture) -> Result<()> {
    let topic = fixture.topic(1)?;
    topic.append(0, &records(0..5))?;
    let source = topic.source()?;
    let mut fetcher = source.fetcher(RawColumns::default(), BUDGET)?;
    read(&mut *fetcher, &[range(&*topic, 0, 0, 5)])?;
    if !topic.grow(3)? {
        return Ok(());
    }
    topic.append(2, &records(0..5))?;
    while source.heads()?.len() < 3 {
        std::thread::yield_now();
    }
    let named: Vec<TopicPartition> = source.heads()?.into_iter().map(|head| head.at).collect();
    assert_eq!(named, [topic.at(0), topic.at(1), topic.at(2)]);
    let ranges = [range(&*topic, 0, 5, 5), range(&*topic, 1, 0, 0), range(&*topic, 2, 0, 5)];
    assert_eq!(read(&mut *fetcher, &ranges)?.len(), 5);
    Ok(())
}

fn bounds_mean_offsets(fixture: &dyn Fixture) -> Result<()> {
    let topic = fixture.topic(2)?;
    topic.append(0, &records(0..10))?;
    let source = topic.source()?;
    let resolve = |bound: Bound| -> Result<Vec<i64>> {
        let positions = source.resolve(&bound)?;
        let named: Vec<_> = positions.iter().map(|(at, _)| at.clone()).collect();
        assert_eq!(named, [topic.at(0), topic.at(1)], "each partition once and in order");
        Ok(positions.into_iter().map(|(_, offset)| offset.0).collect())
    };
    assert_eq!(resolve(Bound::Earliest)?, [0, 0]);
    assert_eq!(resolve(Bound::Latest)?, [10, 0]);
    assert_eq!(resolve(Bound::Timestamp(timestamp(4)))?, [4, 0]);
    assert_eq!(resolve(Bound::Timestamp(timestamp(4) - 1))?, [4, 0], "the first record at or after the time");
    assert_eq!(resolve(Bound::Timestamp(0))?, [0, 0]);
    assert_eq!(resolve(Bound::Timestamp(timestamp(1_000)))?, [10, 0], "the end where no record is so late");
    assert_eq!(resolve(Bound::Offsets(vec![(topic.at(1), Offset(0)), (topic.at(0), Offset(7))]))?, [7, 0]);
    Ok(())
}

fn bounds_that_name_the_wrong_partitions_are_refused(fixture: &dyn Fixture) -> Result<()> {
    let topic = fixture.topic(2)?;
    let source = topic.source()?;
    let missing = source.resolve(&Bound::Offsets(vec![(topic.at(0), Offset(0))])).err();
    assert!(
        missing
            .is_some_and(|error| error.is_config() && error.to_string().contains(&topic.at(1).to_string()))
    );
    let all = [topic.at(0), topic.at(1), topic.at(2)];
    let stranger = source.resolve(&Bound::Offsets(all.map(|at| (at, Offset(0))).to_vec())).err();
    assert!(
        stranger
            .is_some_and(|error| error.is_config() && error.to_string().contains(&topic.at(2).to_string()))
    );
    Ok(())
}

fn what_was_acknowledged_is_where_committed_starts(fixture: &dyn Fixture) -> Result<()> {
    let topic = fixture.topic(2)?;
    (0..2).try_for_each(|partition| topic.append(partition, &records(0..10)))?;
    let committed = Bound::Committed { fallback: Box::new(Bound::Latest) };
    let (source, cancel) = (topic.source()?, Cancel::default());
    assert_eq!(source.resolve(&committed)?, [(topic.at(0), Offset(10)), (topic.at(1), Offset(10))]);
    source.acknowledge(&vec![(topic.at(0), Offset(3))], &cancel)?;
    source.acknowledge(&vec![(topic.at(0), Offset(6))], &cancel)?;
    drop(source); // at once: what was acknowledged must not be on its way still
    let expected = [(topic.at(0), Offset(6)), (topic.at(1), Offset(0))];
    assert_eq!(
        topic.source()?.resolve(&committed)?,
        expected,
        "a partition that was added meanwhile from its start"
    );
    Ok(())
}

fn records_that_are_gone_are_a_loss(fixture: &dyn Fixture) -> Result<()> {
    let topic = fixture.topic(1)?;
    topic.append(0, &records(0..50))?;
    if !topic.trim(0, Offset(20))? {
        return Ok(());
    }
    let mut fetcher = fetcher(&*topic)?;
    let lost = read(&mut *fetcher, &[range(&*topic, 0, 10, 30)]).err();
    let lost = lost.ok_or_else(|| Error::internal("records that are gone were read"))?;
    let text = lost.to_string();
    assert_eq!(lost.kind(), ErrorKind::DataLoss, "{text}");
    for part in [&topic.at(0).to_string(), "10", "20"] {
        assert!(text.contains(part), "topic, partition, wanted and available offset are named: {text}");
    }
    assert_eq!(read(&mut *fetcher, &[range(&*topic, 0, 20, 30)])?.len(), 10);
    assert_eq!(topic.source()?.resolve(&Bound::Earliest)?, [(topic.at(0), Offset(20))]);
    Ok(())
}

fn a_cancelled_fetch_ends_and_can_be_repeated(fixture: &dyn Fixture) -> Result<()> {
    let topic = fixture.topic(2)?;
    topic.append(0, &records(0..10))?;
    let (mut fetcher, cancel) = (fetcher(&*topic)?, Cancel::default());
    let ranges = [range(&*topic, 0, 0, 10), range(&*topic, 1, 0, 10)];
    let mut came = 0;
    fetcher.fetch(&ranges, &cancel, &mut |chunk| {
        came += chunk.len();
        cancel.cancel(); // the other partition has nothing to give, so that only this ends the fetch
        Ok(())
    })?;
    assert_eq!(came, 10);
    topic.append(1, &records(0..10))?;
    assert_eq!(read(&mut *fetcher, &ranges)?.len(), 20);
    Ok(())
}

fn an_error_of_the_sink_comes_back(fixture: &dyn Fixture) -> Result<()> {
    let topic = fixture.topic(1)?;
    topic.append(0, &records(0..20_000))?;
    let (mut fetcher, ranges) = (fetcher(&*topic)?, [range(&*topic, 0, 0, 20_000)]);
    let refused =
        fetcher.fetch(&ranges, &Cancel::default(), &mut |_| Err(Error::user("the sink is full"))).err();
    assert!(refused.is_some_and(|error| error.kind() == ErrorKind::User));
    assert_eq!(read(&mut *fetcher, &ranges)?.len(), 20_000);
    Ok(())
}

fn partitions_move_between_fetchers(fixture: &dyn Fixture) -> Result<()> {
    let topic = fixture.topic(2)?;
    (0..2).try_for_each(|partition| topic.append(partition, &records(0..300)))?;
    let source = topic.source()?;
    let mut fetchers = [fetcher_of(&*source)?, fetcher_of(&*source)?];
    let mut rows = Vec::new();
    for (turn, from) in (0..300).step_by(100).enumerate() {
        for (place, fetcher) in fetchers.iter_mut().enumerate() {
            let partition = i32::from((turn + place) % 2 == 1);
            rows.extend(read(&mut **fetcher, &[range(&*topic, partition, from, from + 100)])?);
        }
    }
    for partition in 0..2 {
        assert_eq!(offsets(&rows, &topic.at(partition)), (0..300).collect::<Vec<_>>());
    }
    Ok(())
}

fn columns_are_yielded_where_they_are_wanted(fixture: &dyn Fixture) -> Result<()> {
    let topic = fixture.topic(1)?;
    let written = [
        ScriptedRecord { key: Some(b"k".to_vec()), payload: None, ..record(0) },
        ScriptedRecord { key: None, payload: Some(Vec::new()), ..record(1) },
        ScriptedRecord { headers: vec![("a".into(), Some(b"1".to_vec())), ("a".into(), None)], ..record(2) },
    ];
    topic.append(0, &written)?;
    let (source, ranges) = (topic.source()?, [range(&*topic, 0, 0, 3)]);
    let all = RawColumns { key: true, timestamp: true, headers: true };
    let rows = read(&mut *source.fetcher(all, BUDGET)?, &ranges)?;
    let seen: Vec<ScriptedRecord> = rows.into_iter().map(Row::into_record).collect();
    assert_eq!(seen, written);
    let chunks = chunks(&mut *source.fetcher(RawColumns::default(), BUDGET)?, &ranges)?;
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk.keys.is_none() && chunk.timestamps.is_none() && chunk.headers.is_none())
    );
    Ok(())
}

fn arrivals_wake_and_move_the_head(fixture: &dyn Fixture) -> Result<()> {
    let topic = fixture.topic(1)?;
    let source = topic.source()?;
    let woken = Arc::new((Mutex::new(false), Condvar::new()));
    let wake = Arc::clone(&woken);
    source.subscribe(Arc::new(move || {
        *wake.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        wake.1.notify_all();
    }));
    let mut fetcher = fetcher_of(&*source)?;
    read(&mut *fetcher, &[range(&*topic, 0, 0, 0)])?;
    *woken.0.lock().unwrap_or_else(PoisonError::into_inner) = false;
    topic.append(0, &records(0..5))?;
    let stable = || Ok::<_, Error>(source.heads()?.first().map_or(0, |head| head.stable.0));
    while stable()? < 5 {
        let waiting = woken.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut raised, waited) = woken
            .1
            .wait_timeout_while(waiting, FOREVER, |woken| !*woken)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out(), "records have arrived and nobody was woken");
        *raised = false;
    }
    assert_eq!(read(&mut *fetcher, &[range(&*topic, 0, 0, 5)])?.len(), 5);
    Ok(())
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    at: TopicPartition,
    offset: i64,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    timestamp: i64,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Row {
    fn into_record(self) -> ScriptedRecord {
        let Self { key, payload, timestamp, headers, .. } = self;
        ScriptedRecord { key, payload, timestamp, headers }
    }
}

fn timestamp(number: i64) -> i64 {
    1_700_000_000_000 + 10 * number
}

fn record(number: i64) -> ScriptedRecord {
    let payload = Some(format!("{{\"number\": {number}}}").into_bytes());
    ScriptedRecord { payload, timestamp: timestamp(number), ..ScriptedRecord::default() }
}

/// Records that tell their numbers; into an empty partition, number and offset are the same.
fn records(numbers: std::ops::Range<i64>) -> Vec<ScriptedRecord> {
    numbers.map(record).collect()
}

fn range(topic: &dyn TestTopic, partition: i32, from: i64, until: i64) -> OffsetRange {
    OffsetRange::new(topic.at(partition), Offset(from), Offset(until))
}

fn latest(topic: &dyn TestTopic, partition: i32) -> Result<Offset> {
    let ends: BTreeMap<_, _> = topic.source()?.resolve(&Bound::Latest)?.into_iter().collect();
    ends.get(&topic.at(partition)).copied().ok_or_else(|| Error::internal("a partition is not resolved"))
}

fn fetcher(topic: &dyn TestTopic) -> Result<Box<dyn Fetcher>> {
    fetcher_of(&*topic.source()?)
}

fn fetcher_of(source: &dyn Source) -> Result<Box<dyn Fetcher>> {
    source.fetcher(RawColumns::default(), BUDGET)
}

fn chunks(fetcher: &mut dyn Fetcher, ranges: &[OffsetRange]) -> Result<Vec<RawChunk>> {
    let mut chunks = Vec::new();
    fetcher.fetch(ranges, &Cancel::default(), &mut |chunk| {
        assert!(!chunk.is_empty(), "a chunk holds at least one record");
        chunks.push(chunk);
        Ok(())
    })?;
    Ok(chunks)
}

fn read(fetcher: &mut dyn Fetcher, ranges: &[OffsetRange]) -> Result<Vec<Row>> {
    Ok(chunks(fetcher, ranges)?.iter().flat_map(rows).collect())
}

fn rows(chunk: &RawChunk) -> Vec<Row> {
    let row = |(place, offset): (usize, &i64)| Row {
        at: chunk.at.clone(),
        offset: *offset,
        key: chunk.keys.as_ref().and_then(|keys| keys.get(place)).map(<[u8]>::to_vec),
        payload: chunk.payloads.get(place).map(<[u8]>::to_vec),
        timestamp: chunk.timestamps.as_ref().and_then(|all| all.get(place).copied()).unwrap_or(-1),
        headers: headers(chunk, place),
    };
    chunk.offsets.iter().enumerate().map(row).collect()
}

fn headers(chunk: &RawChunk, place: usize) -> Vec<(String, Option<Vec<u8>>)> {
    let Some(headers) = &chunk.headers else { return Vec::new() };
    let end = |row: usize| headers.ends.get(row).map_or(0, |end| *end as usize);
    let first = place.checked_sub(1).map_or(0, end);
    let value = |header: usize| headers.values.get(header).map(<[u8]>::to_vec);
    let names = headers.names.iter().enumerate().take(end(place)).skip(first);
    names.map(|(header, name)| (name.clone(), value(header))).collect()
}

fn offsets(rows: &[Row], at: &TopicPartition) -> Vec<i64> {
    rows.iter().filter(|row| row.at == *at).map(|row| row.offset).collect()
}
