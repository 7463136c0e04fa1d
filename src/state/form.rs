//! What a state is: whose it is, of what, and in which columns. State is found again by it, and never by code.
//!
//! A form is plain text beside the columns, so that two of them can be compared, and shown side by side where they
//! differ. The settings under which states were written go with it, as the metadata of the columns, and are no part of
//! what is compared: a changed setting keeps the state. It deliberately knows no operator: what belongs in a form, the
//! operator says.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use crate::error::{Error, ErrorKind, Result};
use crate::state::columns;
use crate::types::type_name;
use crate::wire::{Reader, Writer};

/// The name of the column with the canonical bytes of a row's key.
pub const KEY: &str = "key";
/// The name of the column that says to which pane a row belongs.
pub const PANE: &str = "pane";

/// The fewest bytes of a pair of texts: their lengths.
const LEAST_PAIR: usize = 8;

/// What rows of state there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One a key.
    Keys,
    /// One a key in each pane where it is.
    Panes,
}

/// What a state is.
///
/// ```
/// use std::sync::Arc;
/// use arrow::datatypes::{DataType, Field, Schema};
/// use tidemill::state::form::{Layout, StateForm};
///
/// let columns = Arc::new(Schema::new(vec![Field::new("mean", DataType::Float64, false)]));
/// let form = StateForm::new(Layout::Keys, columns, [("keys", "device string"), ("detector", "Ewma, state 1")]);
/// assert_eq!(form.to_string(), "keys: device string; detector: Ewma, state 1; columns: mean float64");
/// ```
#[derive(Clone, Debug)]
pub struct StateForm {
    layout: Layout,
    aspects: Vec<(String, String)>,
    states: SchemaRef,
}

impl StateForm {
    /// The form of states with the columns `states`, whose metadata are the settings under which they are written; what
    /// they are of, `aspects` say, by name and in order.
    pub fn new<N: Into<String>, V: Into<String>>(
        layout: Layout,
        states: SchemaRef,
        aspects: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let aspects = aspects.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { layout, aspects, states }
    }

    /// What rows there are.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The columns of the states alone; their metadata are the settings under which they were written.
    pub fn states(&self) -> &SchemaRef {
        &self.states
    }

    /// The columns of a row: its key, its pane where there are panes, and its state.
    pub fn columns(&self) -> SchemaRef {
        let own = |name, data_type| Arc::new(Field::new(name, data_type, false));
        let key = own(KEY, DataType::Binary);
        let pane = (self.layout == Layout::Panes).then(|| own(PANE, DataType::Int64));
        let states = self.states.fields().iter().cloned();
        Arc::new(Schema::new(std::iter::once(key).chain(pane).chain(states).collect::<Vec<FieldRef>>()))
    }

    /// The columns that cannot be kept, as `name type`.
    pub fn unstorable(&self) -> Vec<String> {
        columns::unstorable(&self.states)
    }

    /// Whether states are written under the same settings.
    pub fn has_settings_of(&self, other: &Self) -> bool {
        self.states.metadata() == other.states.metadata()
    }

    /// Writes the form, and the settings.
    pub fn write(&self, out: &mut Writer) {
        self.write_compared(out);
        let settings = self.states.metadata().iter().collect::<BTreeMap<_, _>>();
        write_pairs(settings.into_iter().map(|(name, value)| (name.as_str(), value.as_str())), out);
    }

    /// Writes what is compared.
    fn write_compared(&self, out: &mut Writer) {
        out.u8(match self.layout {
            Layout::Keys => 0,
            Layout::Panes => 1,
        });
        write_pairs(self.aspects.iter().map(|(name, value)| (name.as_str(), value.as_str())), out);
        columns::write(&self.states, out);
    }

    /// The form that [`Self::write`] wrote.
    pub fn read(from: &mut Reader<'_>) -> Result<Self> {
        let layout = match from.u8()? {
            0 => Layout::Keys,
            1 => Layout::Panes,
            other => return Err(from.wrong(format!("a layout of rows was expected, found number {other}"))),
        };
        let aspects = read_pairs(from)?;
        let states = columns::read(from)?;
        let settings = read_pairs(from)?.into_iter().collect();
        Ok(Self { layout, aspects, states: Arc::new(states.with_metadata(settings)) })
    }

    /// An error that shows both unless `found` is this form.
    pub fn expect(&self, found: &Self) -> Result<()> {
        if self == found {
            return Ok(());
        }
        let message = format!("state of this form was expected: {self}; found: {found}");
        Err(Error::new(ErrorKind::Checkpoint, message))
    }

    fn compared(&self) -> Vec<u8> {
        let mut out = Writer::default();
        self.write_compared(&mut out);
        out.into_bytes()
    }
}

fn write_pairs<'a>(pairs: impl ExactSizeIterator<Item = (&'a str, &'a str)>, out: &mut Writer) {
    out.count(pairs.len());
    for (name, value) in pairs {
        out.text(name);
        out.text(value);
    }
}

fn read_pairs(from: &mut Reader<'_>) -> Result<Vec<(String, String)>> {
    let count = from.count(LEAST_PAIR)?;
    (0..count).map(|_| Ok((from.text()?.to_owned(), from.text()?.to_owned()))).collect()
}

/// Two forms are the same where all but their settings is written alike.
impl PartialEq for StateForm {
    fn eq(&self, other: &Self) -> bool {
        self.compared() == other.compared()
    }
}

impl Eq for StateForm {}

impl fmt::Display for StateForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.aspects {
            write!(f, "{name}: {value}; ")?;
        }
        let pane = (self.layout == Layout::Panes).then(|| format!("{PANE} int64"));
        let column = |field: &FieldRef| format!("{} {}", field.name(), type_name(field.data_type()));
        let all: Vec<String> = pane.into_iter().chain(self.states.fields().iter().map(column)).collect();
        write!(f, "columns: {}", all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(of: &str, nullable: bool) -> StateForm {
        under("1", of, nullable)
    }

    fn under(setting: &str, of: &str, nullable: bool) -> StateForm {
        let settings = [("quiet".to_owned(), setting.to_owned())].into();
        let columns =
            Schema::new_with_metadata(vec![Field::new("0.sum", DataType::Float64, nullable)], settings);
        StateForm::new(Layout::Panes, Arc::new(columns), [("keys", "k string"), ("0", of)])
    }

    #[test]
    fn a_form_is_read_as_it_was_written() {
        let (form, mut out) = (form("sum(v)", true), Writer::default());
        form.write(&mut out);
        let mut reader = Reader::new("a form", out.as_bytes());
        let read = StateForm::read(&mut reader).unwrap();
        reader.end().unwrap();
        assert_eq!(read, form);
        assert!(read.has_settings_of(&form));
        assert_eq!(read.columns().fields().len(), 3);
    }

    #[test]
    fn a_changed_setting_is_the_same_form() {
        let (before, after) = (under("1", "sum(v)", true), under("2", "sum(v)", true));
        assert_eq!(before, after);
        assert!(!before.has_settings_of(&after));
    }

    #[test]
    fn another_form_is_an_error_that_shows_both() {
        form("sum(v)", true).expect(&form("sum(v)", true)).unwrap();
        let error = form("sum(v)", true).expect(&form("sum(w)", true)).unwrap_err();
        let text = "state of this form was expected: keys: k string; 0: sum(v); columns: pane int64, 0.sum float64; \
                    found: keys: k string; 0: sum(w); columns: pane int64, 0.sum float64";
        assert_eq!(error.to_string(), text);
        assert!(form("sum(v)", true).expect(&form("sum(v)", false)).is_err());
    }
}
