//! Which key comes next, guessed from the records before.
//!
//! Producers write the same keys in the same order and with the same spacing, over and over. So the bytes of a key
//! with the brace or comma before it, its quotes, its colon and the whitespace round them (its *lead*) are compared at
//! once, as two or four words, instead of being scanned and looked up. A guess is never trusted: equal bytes are the
//! same key, and everything else takes the exact way. This file deliberately parses nothing.

use crate::decode::json::cursor::Cursor;

/// Longer leads are not learnt.
const LEAD_BYTES: usize = 32;

/// A lead as words. Two are compared at a time: `u128` was tried, and is compiled to slower vector code.
const WORDS: usize = LEAD_BYTES / 8;

/// More leads than this are not kept: a search through them would cost more than the exact way.
const MAX_STEPS: usize = 64;

/// What a key leads to: one of the columns that are read, or none.
pub(super) type Target = Option<usize>;

/// The leads of the last records, in their usual order, each once.
#[derive(Debug, Default)]
pub(super) struct Prediction {
    steps: Vec<Step>,
}

/// How one record follows the prediction.
#[derive(Debug, Default)]
pub(super) struct Progress {
    next: usize,
    misses: usize,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    words: [u64; WORDS],
    masks: [u64; WORDS],
    lead: [u8; LEAD_BYTES],
    len: usize,
    target: Target,
}

impl Prediction {
    /// Steps over the lead at the cursor, if it is known; what it leads to. The cursor stands at the brace or comma
    /// before a key, which of them is not looked at: a key's lead is the same wherever in a record it stands.
    #[inline]
    pub(super) fn follow(&self, progress: &mut Progress, input: &mut Cursor<'_>) -> Option<Target> {
        match self.steps.get(progress.next) {
            Some(step) if step.matches(input) => {
                input.skip(step.len);
                progress.next += 1;
                Some(step.target)
            }
            _ => input.lend(|input| self.search(progress, input)),
        }
    }

    /// Keys that are left out, added or moved: the lead is looked for from the guessed place on, then before it.
    #[inline(never)]
    fn search(&self, progress: &mut Progress, input: &mut Cursor<'_>) -> Option<Target> {
        let (before, after) = self.steps.split_at_checked(progress.next).unwrap_or_default();
        let order = after.iter().enumerate().map(|(place, step)| (before.len() + place, step));
        let mut order = order.chain(before.iter().enumerate());
        let (place, step) = order.find(|(_, step)| step.matches(input))?;
        input.skip(step.len);
        progress.next = place + 1;
        Some(step.target)
    }

    /// Remembers that `lead`, which was not known, stood here.
    pub(super) fn learn(&mut self, progress: &mut Progress, lead: &[u8], target: Target) {
        progress.misses += 1;
        if let Some(step) = Step::new(lead, target).filter(|_| self.steps.len() < MAX_STEPS) {
            let place = progress.next.min(self.steps.len());
            self.steps.insert(place, step);
            progress.next = place + 1;
        }
    }

    /// Starts anew where the memory is full of keys that do not come any more.
    #[inline]
    pub(super) fn settle(&mut self, progress: &Progress) {
        if progress.misses > 0 && self.steps.len() == MAX_STEPS {
            self.steps.clear();
        }
    }
}

impl Step {
    fn new(lead: &[u8], target: Target) -> Option<Self> {
        let mut padded = [0; LEAD_BYTES];
        padded.get_mut(..lead.len())?.copy_from_slice(lead);
        let mut mask = [0; LEAD_BYTES];
        mask.get_mut(1..lead.len())?.fill(0xff);
        padded[0] = 0;
        Some(Self { words: words(&padded), masks: words(&mask), lead: padded, len: lead.len(), target })
    }

    #[inline]
    fn matches(&self, input: &Cursor<'_>) -> bool {
        let rest = input.rest();
        if let Some(first) = rest.first_chunk::<16>() {
            if self.differs(&words::<16, 2>(first)) {
                return false;
            }
            if self.len <= 16 {
                return true;
            }
        }
        match rest.first_chunk::<LEAD_BYTES>() {
            Some(chunk) => !self.differs(&words::<LEAD_BYTES, WORDS>(chunk)),
            None => self
                .lead
                .get(1..self.len)
                .zip(rest.get(1..))
                .is_some_and(|(lead, rest)| rest.starts_with(lead)),
        }
    }

    /// Whether the words of the text differ from those of the lead.
    #[inline]
    fn differs(&self, text: &[u64]) -> bool {
        let parts = text.iter().zip(&self.words).zip(&self.masks);
        parts.fold(0, |different, ((text, lead), mask)| different | ((text & mask) ^ lead)) != 0
    }
}

#[inline]
fn words<const BYTES: usize, const WORDS: usize>(bytes: &[u8; BYTES]) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (word, eight) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*eight);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learnt(leads: &[&str]) -> Prediction {
        let (mut prediction, mut progress) = (Prediction::default(), Progress::default());
        for (index, lead) in leads.iter().enumerate() {
            prediction.learn(&mut progress, lead.as_bytes(), Some(index));
        }
        prediction
    }

    #[test]
    fn a_lead_is_found_in_its_place_and_out_of_it() {
        let prediction = learnt(&["{\"a\":", ", \"a key of over 16 bytes\"", ",\"c\":"]);
        let mut progress = Progress::default();
        for (text, target) in [
            (",\"c\":1", Some(Some(2))),
            (",\"a\":1", Some(Some(0))),
            (", \"a key of over 16 bytes\"", Some(Some(1))),
            (", \"a key of over 16 lynxes\"", None),
            ("{\"c\":a long value to come after it", Some(Some(2))),
            (",\"b\":a long value to come after it", None),
            (",\"c\"", None),
            (",", None),
            ("", None),
        ] {
            let mut input = Cursor::new(text.as_bytes());
            assert_eq!(prediction.follow(&mut progress, &mut input), target, "{text}");
        }
    }

    #[test]
    fn memory_is_bounded_and_begins_anew() {
        let mut prediction = learnt(&[]);
        let mut progress = Progress::default();
        for index in 0..1_000 {
            prediction.learn(&mut progress, format!(",\"{index}\":").as_bytes(), None);
        }
        assert_eq!(prediction.steps.len(), MAX_STEPS);
        prediction.settle(&progress);
        assert!(prediction.steps.is_empty());
    }
}
