//! The names by which the state of operators is found again.
//!
//! The user gives them, or they follow from what an operator is over which keys: other operators may come and go around it,
//! and lines may move. What its state is of (windows, aggregates, a detector) is deliberately no part of a name: changed, it
//! is to be met as another form of the same operator's state, and not as an operator that came and one that went.

use std::collections::{BTreeMap, HashSet};

use crate::error::{Error, Result};
use crate::plan::{Checked, Node, NodeId, Operator, Plan};

/// No name is longer, in bytes: it stands in every chunk of state.
const LONGEST_NAME: usize = 128;

impl Checked {
    /// The name of each operator that may remember something: the user's own, or what it is over which keys; of several
    /// that are the same in that, the second ends in " #2", and so on.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use arrow::datatypes::{DataType, Field, Schema};
    /// use tidemill::decode::{Format, OnBad};
    /// use tidemill::detect::{DetectSpec, ewma::Ewma};
    /// use tidemill::plan::{Operator, Plan, SourceSpec};
    ///
    /// let fields = vec![Field::new("device", DataType::Utf8, true), Field::new("t", DataType::Float64, true)];
    /// let mut plan = Plan::default();
    /// let source = plan.add_source(SourceSpec {
    ///     name: "readings".to_owned(),
    ///     format: Format::Json(Arc::new(Schema::new(fields))),
    ///     metadata: vec![],
    ///     on_bad: OnBad::Fail,
    ///     event_time: None,
    /// });
    /// let readings = plan.add(Operator::Source(source), vec![], None);
    /// let keyed = plan.add(Operator::KeyBy(vec!["device".to_owned()]), vec![readings], None);
    /// let (columns, detector) = (vec!["t".to_owned()], Arc::new(Ewma::default()));
    /// let detect = DetectSpec { columns, detector, threshold: None, prefix: String::new() };
    /// let scored = plan.add(Operator::Detect(detect), vec![keyed], None);
    /// plan.add_output(scored, None);
    /// assert_eq!(plan.check()?.state_names()?[&scored], "detect t by device");
    /// plan.name(scored, "temperature");
    /// assert_eq!(plan.check()?.state_names()?[&scored], "temperature");
    /// # Ok::<(), tidemill::error::Error>(())
    /// ```
    pub fn state_names(&self) -> Result<BTreeMap<NodeId, String>> {
        let given = |(id, node): (NodeId, &Node)| Some((id, node.name.clone()?));
        let mut names: BTreeMap<NodeId, String> = self.plan().iter().filter_map(given).collect();
        let mut taken: HashSet<String> = names.values().cloned().collect();
        for (id, node) in self.plan().iter().filter(|(_, node)| node.name.is_none()) {
            if let Some(derived) = self.derived(node)? {
                let name = free(derived, &taken);
                taken.insert(name.clone());
                names.insert(id, name);
            }
        }
        Ok(names)
    }

    /// What an operator is over which keys; none of one that remembers nothing.
    fn derived(&self, node: &Node) -> Result<Option<String>> {
        let (what, keys) = match (&node.operator, node.inputs.first()) {
            (Operator::Detect(spec), Some(input)) => {
                let keys = self.keys(*input)?.unwrap_or_default().to_vec();
                (format!("detect {}", spec.columns.join(", ")), keys)
            }
            (Operator::Aggregate(spec), _) => ("agg".to_owned(), spec.keys.clone()),
            _ => return Ok(None),
        };
        Ok(Some(if keys.is_empty() { what } else { format!("{what} by {}", keys.join(", ")) }))
    }
}

/// `name` cut to what a name may have, with a number where it is taken.
fn free(name: String, taken: &HashSet<String>) -> String {
    let cut = |name: &str, most: usize| {
        let end = (0..=most.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
        name.get(..end).unwrap_or_default().to_owned()
    };
    let first = cut(&name, LONGEST_NAME);
    let later = (2..).map(|number| {
        let end = format!(" #{number}");
        cut(&name, LONGEST_NAME - end.len()) + &end
    });
    std::iter::once(first).chain(later).find(|name| !taken.contains(name)).unwrap_or(name)
}

impl Plan {
    /// What is wrong with the names that the user gave.
    pub(super) fn name_mistakes(&self) -> Vec<Error> {
        let (mut seen, mut mistakes) = (HashSet::new(), Vec::new());
        for node in &self.nodes {
            let Some(name) = &node.name else { continue };
            let mistake = if !seen.insert(name) {
                Error::config(format!("each operator has a name of its own, found two called \"{name}\""))
                    .help("its state is found again by it: give them different names")
            } else if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
                Error::config(format!(
                    "a name is text of 1 to {LONGEST_NAME} bytes without control characters, found {name:?}"
                ))
            } else {
                continue;
            };
            mistakes.push(node.locate(mistake));
        }
        mistakes
    }
}
