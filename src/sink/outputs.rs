//! The sinks of a job that publishes exactly once: who leads, who joins, who follows, and in which order.
//!
//! One of them leads: its act of publishing is the moment at which a batch is there, and its marker tells whether it is.
//! Sinks that share its producer join that act. Sinks that put what is not there yet follow: whatever they have missed is
//! put again by whoever takes over. This file deliberately holds no sink and no log; it is called with the sinks, in the
//! order of the outputs, by whoever has both.

use super::digest::{Digest, Digester};
use super::marker::{Epoch, Marker, Owner};
use super::transactional::{GroupOffsets, Part, Prepared, Publication, Published, Publishing, Transactional};
use super::{Delivery, Sink};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::kafka::Cluster;
use crate::time::BatchId;

/// What a sink does when a batch is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its publishing decides.
    Leads,
    /// The leader publishes its output with its own.
    Joins,
    /// It puts its output once the leader has published.
    Follows,
    /// It is given a batch before that, and so perhaps again.
    AtLeastOnce,
    /// It shows a batch that is committed.
    Shows,
}

/// The roles of a job's sinks.
///
/// ```
/// use tidemill::cancel::Cancel;
/// use tidemill::sink::Sink;
/// use tidemill::sink::contract::{delivery, schema};
/// use tidemill::sink::marker::{Epoch, Owner};
/// use tidemill::sink::outputs::{Outputs, Role};
/// use tidemill::sink::scripted::{ScriptedPlace, ScriptedSink};
///
/// let place = ScriptedPlace::default();
/// let mut sink = ScriptedSink::new(&place);
/// let mut sinks: [&mut dyn Sink; 1] = [&mut sink];
/// let (outputs, cancel) = (Outputs::of(&mut sinks)?, Cancel::default());
/// assert_eq!(outputs.role(0), Role::Leads);
///
/// outputs.open(&mut sinks, &[schema()], &cancel)?;
/// let owner = Owner { job: "test".to_owned(), epoch: Epoch(1) };
/// assert_eq!(outputs.init(&mut sinks, &owner, &cancel)?, None);
/// let batch = outputs.prepare(&mut sinks, &[delivery(7, 0..5)], owner.epoch)?;
/// // … PREPARE with batch.marker().digest and batch.records() is made safe here …
/// outputs.publish(&mut sinks, &batch, &[], &cancel)?;
/// assert_eq!(place.rows(), [0, 1, 2, 3, 4]);
/// assert_eq!(place.marker(), Some(*batch.marker()));
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outputs(Vec<Role>);

/// A batch as all sinks would publish it.
#[derive(Clone, Debug)]
pub struct PreparedBatch {
    marker: Marker,
    outputs: Vec<(usize, Prepared)>,
}

impl PreparedBatch {
    /// What would be kept with it: its batch and the digest of all its output.
    pub fn marker(&self) -> &Marker {
        &self.marker
    }

    /// Whether there is anything to publish.
    pub fn publishes(&self) -> bool {
        self.outputs.iter().any(|(_, output)| output.rows > 0)
    }

    /// By the numbers of the outputs, what another driver needs to publish it where this one has not come to its end.
    pub fn records(&self) -> Vec<(usize, Vec<u8>)> {
        let with_record = self.outputs.iter().filter(|(_, output)| !output.record.is_empty());
        with_record.map(|(index, output)| (*index, output.record.clone())).collect()
    }

    fn output(&self, wanted: usize) -> Option<&Prepared> {
        self.outputs.iter().find(|(index, _)| *index == wanted).map(|(_, output)| output)
    }
}

/// What a sink that publishes says of itself.
struct Publisher {
    index: usize,
    publishing: Publishing,
    place: String,
}

impl Outputs {
    /// Finds the roles of `sinks`; an error where no single act could publish what they would.
    pub fn of(sinks: &mut [&mut dyn Sink]) -> Result<Self> {
        let publishers = publishers(sinks);
        let appends = publishers.iter().find(|publisher| publisher.publishing == Publishing::Appends);
        let leader = appends.or(publishers.first()).map(|leader| leader.index);
        let mut roles = Vec::with_capacity(sinks.len());
        for index in 0..sinks.len() {
            let publisher = publishers.iter().find(|publisher| publisher.index == index);
            roles.push(match publisher {
                Some(_) if leader == Some(index) => Role::Leads,
                Some(one) if one.publishing == Publishing::Puts => Role::Follows,
                Some(one) => join(sinks, one, leader, &publishers)?,
                None => role_of(sinks, index),
            });
        }
        twice(&publishers).map_or(Ok(Self(roles)), Err)
    }

    /// What the sink with this number does.
    pub fn role(&self, index: usize) -> Role {
        self.0.get(index).copied().unwrap_or(Role::AtLeastOnce)
    }

    /// Whether any sink publishes at all; where none does there is no marker either.
    pub fn have_leader(&self) -> bool {
        self.0.contains(&Role::Leads)
    }

    /// Opens each sink for what it does.
    pub fn open(
        &self,
        sinks: &mut [&mut dyn Sink],
        schemas: &[arrow::datatypes::SchemaRef],
        cancel: &Cancel,
    ) -> Result<()> {
        for (sink, schema) in sinks.iter_mut().zip(schemas) {
            at(&mut **sink, |sink| match sink.part() {
                Part::Publishes(publisher) => publisher.open(schema, cancel),
                Part::AtLeastOnce | Part::Shows => sink.open(schema, cancel),
            })?;
        }
        Ok(())
    }

    /// Takes all places over for `owner`, and then reads the marker. Once an epoch.
    pub fn init(
        &self,
        sinks: &mut [&mut dyn Sink],
        owner: &Owner,
        cancel: &Cancel,
    ) -> Result<Option<Marker>> {
        let mut marker = None;
        for (index, sink) in sinks.iter_mut().enumerate() {
            let role = self.role(index);
            if matches!(role, Role::Leads | Role::Follows) {
                let found = with(&mut **sink, |sink| sink.init(owner, cancel))?;
                marker = if role == Role::Leads { found } else { marker };
            }
        }
        Ok(marker)
    }

    /// Whether offsets of sources at `cluster` belong to what the leader publishes.
    pub fn take_offsets_of(&self, sinks: &mut [&mut dyn Sink], cluster: &Cluster) -> bool {
        let leader = self.0.iter().position(|role| *role == Role::Leads);
        let leader = leader.and_then(|leader| sinks.get_mut(leader));
        leader.is_some_and(|sink| match sink.part() {
            Part::Publishes(publisher) => {
                publisher.cluster().is_some_and(|theirs| theirs.shares_address(cluster))
            }
            Part::AtLeastOnce | Part::Shows => false,
        })
    }

    /// Has every sink that publishes prepare its delivery of a batch; `deliveries` are in the order of the sinks.
    pub fn prepare(
        &self,
        sinks: &mut [&mut dyn Sink],
        deliveries: &[Delivery],
        epoch: Epoch,
    ) -> Result<PreparedBatch> {
        let mut outputs = Vec::new();
        for (index, (sink, delivery)) in sinks.iter_mut().zip(deliveries).enumerate() {
            if self.publishes(index) {
                outputs.push((index, with(&mut **sink, |sink| sink.prepare(delivery))?));
            }
        }
        let batch = deliveries.first().map_or(BatchId::default(), |delivery| delivery.batch);
        let digest = digest(&outputs);
        Ok(PreparedBatch { marker: Marker { batch, epoch, digest }, outputs })
    }

    /// A batch that another driver has prepared and published: `marker` names it, `records` are what its PREPARE kept.
    /// Only what follows can still be put.
    pub fn restore(
        &self,
        sinks: &mut [&mut dyn Sink],
        marker: Marker,
        records: &[(usize, Vec<u8>)],
    ) -> Result<PreparedBatch> {
        let mut outputs = Vec::new();
        for (index, record) in records {
            let sink = sinks.get_mut(*index).filter(|_| self.publishes(*index)).ok_or_else(|| {
                let message = format!("batch {} names output {index}, which publishes no more", marker.batch);
                Error::sink(message).help("start the job with the outputs that it had")
            })?;
            outputs.push((*index, with(&mut **sink, |sink| sink.restore(record))?));
        }
        Ok(PreparedBatch { marker, outputs })
    }

    /// Publishes a decided batch: first all that appears as one with the marker, then what follows.
    pub fn publish(
        &self,
        sinks: &mut [&mut dyn Sink],
        batch: &PreparedBatch,
        offsets: &[GroupOffsets],
        cancel: &Cancel,
    ) -> Result<Published> {
        let joint = |(index, _): &&(usize, Prepared)| matches!(self.role(*index), Role::Leads | Role::Joins);
        let outputs: Vec<&Prepared> = batch.outputs.iter().filter(joint).map(|(_, output)| output).collect();
        let publication = Publication { outputs: &outputs, marker: &batch.marker, offsets, cancel };
        let published = self.lead(sinks, &publication)?;
        self.follow(sinks, batch, cancel)?;
        Ok(published)
    }

    /// Puts what follows of a batch whose marker is there; what is there already stays as it is.
    pub fn follow(&self, sinks: &mut [&mut dyn Sink], batch: &PreparedBatch, cancel: &Cancel) -> Result<()> {
        for (index, sink) in sinks.iter_mut().enumerate() {
            let output = batch.output(index).filter(|output| output.rows > 0);
            if let Some(output) = output.filter(|_| self.role(index) == Role::Follows) {
                let publication =
                    Publication { outputs: &[output], marker: &batch.marker, offsets: &[], cancel };
                with(&mut **sink, |sink| sink.publish(&publication))?;
            }
        }
        Ok(())
    }

    /// Publishes a marker once more, and nothing else, so that the place does not forget it.
    pub fn renew(&self, sinks: &mut [&mut dyn Sink], marker: &Marker, cancel: &Cancel) -> Result<()> {
        let publication = Publication { outputs: &[], marker, offsets: &[], cancel };
        self.lead(sinks, &publication).map(drop)
    }

    /// Has every sink remove what older drivers have prepared and can publish no more.
    pub fn collect(&self, sinks: &mut [&mut dyn Sink]) -> Result<()> {
        for (index, sink) in sinks.iter_mut().enumerate() {
            if self.publishes(index) {
                with(&mut **sink, Transactional::collect)?;
            }
        }
        Ok(())
    }

    fn lead(&self, sinks: &mut [&mut dyn Sink], publication: &Publication<'_>) -> Result<Published> {
        let leader = self.0.iter().position(|role| *role == Role::Leads);
        match leader.and_then(|leader| sinks.get_mut(leader)) {
            Some(sink) => with(&mut **sink, |sink| sink.publish(publication)),
            None => Ok(Published::default()),
        }
    }

    fn publishes(&self, index: usize) -> bool {
        matches!(self.role(index), Role::Leads | Role::Joins | Role::Follows)
    }
}

fn publishers(sinks: &mut [&mut dyn Sink]) -> Vec<Publisher> {
    let of = |index: usize, sink: &mut dyn Sink| match sink.part() {
        Part::Publishes(sink) => {
            Some(Publisher { index, publishing: sink.publishing(), place: sink.place() })
        }
        Part::AtLeastOnce | Part::Shows => None,
    };
    sinks.iter_mut().enumerate().filter_map(|(index, sink)| of(index, &mut **sink)).collect()
}

fn role_of(sinks: &mut [&mut dyn Sink], index: usize) -> Role {
    match sinks.get_mut(index).map(|sink| sink.part()) {
        Some(Part::Shows) => Role::Shows,
        _ => Role::AtLeastOnce,
    }
}

/// The role of a sink that appends where another one leads.
fn join(
    sinks: &mut [&mut dyn Sink],
    one: &Publisher,
    leader: Option<usize>,
    all: &[Publisher],
) -> Result<Role> {
    let pair = leader.and_then(|leader| sinks.get_disjoint_mut([leader, one.index]).ok());
    let joins = pair.is_some_and(|[leader, sink]| match (leader.part(), sink.part()) {
        (Part::Publishes(leader), Part::Publishes(sink)) => sink.joins(leader),
        _ => false,
    });
    if joins {
        return Ok(Role::Joins);
    }
    let place = &one.place;
    let first = all.iter().find(|other| Some(other.index) == leader).map_or("", |other| &other.place);
    Err(Error::config(format!(
        "exactly once takes one transaction a batch, found two outputs that need one each: {first} and {place}"
    ))
    .help("write both to one cluster, with the same settings; or pass guarantee=\"at_least_once\""))
}

/// Two sinks with one place would each take the other's output for its own.
fn twice(publishers: &[Publisher]) -> Option<Error> {
    let puts = |publisher: &&Publisher| publisher.publishing == Publishing::Puts;
    let place = publishers.iter().filter(puts).find_map(|one| {
        let others = publishers.iter().filter(puts).filter(|other| other.place == one.place);
        (others.count() > 1).then_some(&one.place)
    })?;
    let message = format!("each output needs a place of its own, found two that write to {place}");
    Some(Error::config(message).help("give each a directory of its own"))
}

fn digest(outputs: &[(usize, Prepared)]) -> Digest {
    let mut digester = Digester::new("tidemill batch 1");
    for (index, output) in outputs {
        digester.number(*index as u64);
        digester.bytes(&output.digest.0);
    }
    digester.finish()
}

/// What a sink that publishes does, with its name in errors.
fn with<T>(sink: &mut dyn Sink, work: impl FnOnce(&mut dyn Transactional) -> Result<T>) -> Result<T> {
    at(sink, |sink| match sink.part() {
        Part::Publishes(sink) => work(sink),
        Part::AtLeastOnce | Part::Shows => {
            Err(Error::internal("a sink is asked to publish that has said it does not"))
        }
    })
}

fn at<T>(sink: &mut dyn Sink, work: impl FnOnce(&mut dyn Sink) -> Result<T>) -> Result<T> {
    let name = format!("sink {}", sink.name());
    work(sink).map_err(|error| sink.locate(error).at(name))
}
