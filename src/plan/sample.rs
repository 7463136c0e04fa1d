//! Samples in a plan: which fraction, with which seed, and whose rows must tell where they come from for it, or to be dealt
//! out.
//!
//! That is told by a hidden column, which is deliberately in no operator's schema: users never see it, and operators
//! that lead to no sample never carry it.

use std::collections::HashSet;

use xxhash_rust::xxh3::xxh3_64;

use crate::decode::Metadata;
use crate::error::Error;
use crate::plan::check::Stream;
use crate::plan::{CallSite, Checked, NodeId, Operator, Plan};

/// A random part of the rows, the same in every run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleSpec {
    /// How many of the rows are kept, from 0 to 1.
    pub fraction: f64,
    /// What the sample follows from, beside the rows.
    pub seed: Seed,
}

/// What a sample follows from, beside the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seed {
    /// The user's.
    Given(i64),
    /// One that the plan chose: the same in every run of the script, and another for each of its samples.
    Own(i64),
}

impl Seed {
    /// The number.
    pub fn value(self) -> i64 {
        match self {
            Self::Given(seed) | Self::Own(seed) => seed,
        }
    }
}

impl Plan {
    /// Adds a sample of the rows of `input`; without a seed, with one that follows from how many samples without one
    /// there are before it.
    ///
    /// ```
    /// use tidemill::plan::{NodeId, Operator, Plan, Seed};
    /// let mut plan = Plan::default();
    /// let first = plan.add_sample(NodeId(0), 0.1, Some(7), None);
    /// let second = plan.add_sample(NodeId(0), 0.1, None, None);
    /// assert!(matches!(&plan.node(first)?.operator, Operator::Sample(spec) if spec.seed == Seed::Given(7)));
    /// assert!(matches!(&plan.node(second)?.operator, Operator::Sample(spec) if spec.seed != Seed::Given(7)));
    /// # Ok::<(), tidemill::error::Error>(())
    /// ```
    pub fn add_sample(
        &mut self,
        input: NodeId,
        fraction: f64,
        seed: Option<i64>,
        site: Option<CallSite>,
    ) -> NodeId {
        let seed = seed.map_or_else(|| self.own_seed(), Seed::Given);
        self.add(Operator::Sample(SampleSpec { fraction, seed }), vec![input], site)
    }

    fn own_seed(&self) -> Seed {
        let own =
            |operator: &Operator| matches!(operator, Operator::Sample(SampleSpec { seed: Seed::Own(_), .. }));
        let before = self.nodes.iter().filter(|node| own(&node.operator)).count() as u64;
        // Without its sign: the number is for people, who may want to write it down.
        Seed::Own((xxh3_64(&before.to_le_bytes()) >> 1).cast_signed())
    }
}

impl SampleSpec {
    /// The rows, of which fewer come; or what is wrong.
    pub(super) fn stream(&self, input: &Stream) -> Result<Stream, Vec<Error>> {
        if (0.0..=1.0).contains(&self.fraction) {
            return Ok(Stream::clone(input));
        }
        let text = format!("sample takes a fraction from 0 to 1, found {}", self.fraction);
        let help = match self.fraction {
            percent if percent > 1.0 && percent <= 100.0 => {
                format!("write {} for {percent} %", percent / 100.0)
            }
            _ => "0.1 keeps about every tenth row".to_owned(),
        };
        Err(vec![Error::config(text).help(help)])
    }
}

impl Checked {
    /// The operators whose rows have to tell where they come from, since a sample behind them asks, or what deals them out.
    pub(crate) fn traced(&self) -> HashSet<NodeId> {
        let (live, mut traced) = (self.live(), HashSet::new());
        for (id, node) in self.plan().iter().rev().filter(|(id, _)| live.contains(id)) {
            let asks = match node.operator {
                Operator::Sample(_) | Operator::Repartition(_) => true,
                // Where theirs begin, or begin anew.
                Operator::Source(_) | Operator::DeadLetters(_) | Operator::Aggregate(_) => false,
                _ => traced.contains(&id),
            };
            traced.extend(node.inputs.iter().copied().filter(|_| asks));
        }
        traced
    }
}

/// What is wrong with the columns of `stream` that are new in it: one has the name of the column that nobody sees.
pub(super) fn hidden_name(stream: &Stream, inputs: &[&Stream]) -> Option<Error> {
    let name = Metadata::Provenance.name();
    let has = |stream: &Stream| stream.schema.field_with_name(name).is_ok();
    let new = has(stream) && !inputs.iter().any(|input| has(input));
    let text = || format!("no column can have the name {name:?}, which is in use within");
    new.then(|| Error::config(text()).help("give it another"))
}
