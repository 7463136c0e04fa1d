//! Topics by a regular expression that matches their whole names.
//!
//! It deliberately asks nobody which topics there are: it is told their names.

use std::fmt;

use regex::Regex;

use crate::error::{Error, Result};

/// The topics that Kafka itself keeps in every cluster. They hold no records of a user's, and who matches everything does
/// not mean them. Others whose names begin with underscores are of some tool or other, and may well be meant.
const INTERNAL: [&str; 4] =
    ["__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata"];

/// So many names are shown where none matches.
const NAMED_TOPICS: usize = 20;

const GLOB: &str = "the expression is matched against whole names, and a * repeats what stands before it: any text is .*, as in \"sensors-.*\"";

/// Topics whose whole name a regular expression matches; never one of Kafka's own.
///
/// ```
/// use tidemill::ingest::kafka::TopicPattern;
/// let sensors = TopicPattern::new("sensors-.*")?;
/// assert!(sensors.matches("sensors-1") && !sensors.matches("old-sensors-1"));
/// assert!(!TopicPattern::new(".*")?.matches("__consumer_offsets"));
/// let wrong = TopicPattern::new("sensors-(1|2").unwrap_err().to_string();
/// assert!(wrong.contains("unclosed group at character 9"), "{wrong}");
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Clone)]
pub struct TopicPattern {
    text: String,
    whole: Regex,
}

impl TopicPattern {
    /// The pattern that `text` is; an error with the place in it where it is none.
    pub fn new(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::config("pattern is a regular expression, found \"\"").help(GLOB));
        }
        // By itself first: what is wrong stands at its place in what the user wrote.
        regex_syntax::parse(text).map_err(|error| refused(text, &error))?;
        let whole = Regex::new(&format!(r"\A(?:{text})\z"));
        let whole = whole.map_err(|error| {
            Error::config(format!("pattern={text:?} cannot be matched against whole names: {error}"))
        })?;
        Ok(Self { text: text.to_owned(), whole })
    }

    /// Whether `topic` is one of those that are meant.
    pub fn matches(&self, topic: &str) -> bool {
        !INTERNAL.contains(&topic) && self.whole.is_match(topic)
    }

    /// Says that none of the topics that are `there` is meant, and names the nearest.
    pub(super) fn without_match(&self, there: Vec<String>, cluster: impl fmt::Display) -> Error {
        let mut near: Vec<String> =
            there.into_iter().filter(|name| !INTERNAL.contains(&name.as_str())).collect();
        let plain: String = self.text.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect();
        near.sort_by_cached_key(|name| (std::cmp::Reverse(alike(name, &plain)), name.clone()));
        let more = near.len().saturating_sub(NAMED_TOPICS);
        near.truncate(NAMED_TOPICS);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let listed = if near.is_empty() { "none".to_owned() } else { near.join(", ") };
        Error::source(format!(
            "no topic at {cluster} matches pattern={:?}; there are, the nearest first: {listed}{more}",
            self.text
        ))
        .help(GLOB)
    }
}

/// How many letters two names begin with alike, and where that is nothing, whether one holds the other.
fn alike(name: &str, plain: &str) -> usize {
    let begin = name.chars().zip(plain.chars()).take_while(|(a, b)| a.eq_ignore_ascii_case(b)).count();
    begin * 2 + usize::from(!plain.is_empty() && name.contains(plain))
}

fn refused(text: &str, error: &regex_syntax::Error) -> Error {
    let (what, offset) = match error {
        regex_syntax::Error::Parse(error) => (error.kind().to_string(), error.span().start.offset),
        regex_syntax::Error::Translate(error) => (error.kind().to_string(), error.span().start.offset),
        other => (other.to_string(), 0),
    };
    let (before, rest) = text.split_at_checked(offset).unwrap_or((text, ""));
    let place = before.chars().count() + 1;
    Error::config(format!(
        "pattern={text:?} is no regular expression: {what} at character {place} ({rest:?})"
    ))
    .help(GLOB)
}

impl PartialEq for TopicPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for TopicPattern {}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicPattern({:?})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_names_are_matched_whatever_the_expression_begins_and_ends_with() {
        for (pattern, name, is_meant) in [
            ("a|b", "a", true),
            ("a|b", "ab", false),
            ("a", "ba", false),
            ("^sensors-[0-9]+$", "sensors-12", true),
            ("(?i)SENSORS", "sensors", true),
            (".*", "__transaction_state", false),
            ("__.*", "__debezium-heartbeat", true),
        ] {
            assert_eq!(TopicPattern::new(pattern).unwrap().matches(name), is_meant, "{pattern} {name}");
        }
    }

    #[test]
    fn a_wrong_expression_is_told_with_the_place_in_it() {
        for (pattern, said) in [
            ("", "found \"\""),
            ("*-readings", "repetition operator missing expression at character 1 (\"*-readings\")"),
            ("ä[b", "unclosed character class at character 2 (\"[b\")"),
            ("a(?=b)", "look-around, including look-ahead and look-behind, is not supported at character 2"),
        ] {
            let error = TopicPattern::new(pattern).unwrap_err();
            assert!(error.is_config() && error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn where_nothing_matches_the_nearest_are_named_first() {
        let there = ["alerts", "__consumer_offsets", "sensor-1"].map(str::to_owned).to_vec();
        let text = TopicPattern::new("sensors-.*").unwrap().without_match(there, "k:1").to_string();
        assert!(text.contains("the nearest first: sensor-1, alerts;"), "{text}");
    }
}
