//! An aggregation as the user said it, and what it is over known columns: its calls, and the columns made of them.
//!
//! It deliberately aggregates nothing: `exec` binds the calls to what is left of the columns after pruning.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};

use crate::aggregate::{Aggregate, Scope};
use crate::error::{Error, Result};
use crate::expr::{Call, Expression, aggregate_column, split_all};
use crate::plan::check::{Stream, TimeColumn, distinct, find_all, one};
use crate::plan::{Checked, Named, NodeId};
use crate::state::key::KeyEncoder;
use crate::state::window::{WindowShape, Windows};
use crate::types::type_name;

/// The columns that windows add in front of the keys.
pub(crate) const WINDOW_START: &str = "window_start";
/// Where the window ends; the moment itself is no part of it.
pub(crate) const WINDOW_END: &str = "window_end";
/// The column of `.late` that says why a row has no place.
pub(crate) const LATE_REASON: &str = "late_reason";

/// When the results of a window leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Emit {
    /// Once, when the watermark passes the window's end.
    #[default]
    Final,
    /// In every batch that changed them. A row replaces the one before it of the same window and key; nothing is ever
    /// taken back, and the last one is the final one.
    Updates,
}

/// Windows of event time over a stream.
#[derive(Clone, Debug)]
pub struct WindowSpec {
    /// Length, slide and offset.
    pub shape: WindowShape,
    /// The source's event-time column.
    pub on: String,
    /// When results leave.
    pub emit: Emit,
}

/// Rows aggregated by key: those of a batch, or those of each window.
///
/// ```
/// use std::time::Duration;
/// use tidemill::expr::Expression;
/// use tidemill::plan::{AggregateSpec, Emit, Named, Operator, WindowSpec};
/// use tidemill::state::window::WindowShape;
///
/// let minute = Duration::from_secs(60);
/// let shape = WindowShape { length: 5 * minute, slide: minute, offset: Duration::ZERO };
/// let mean = Named { name: "mean".to_owned(), expression: Expression::sql("avg(t) FILTER (WHERE t > 0)") };
/// let spec = AggregateSpec {
///     keys: vec!["device".to_owned()],
///     columns: vec![mean],
///     window: Some(WindowSpec { shape, on: "ts".to_owned(), emit: Emit::Final }),
/// };
/// assert_eq!(Operator::Aggregate(spec).name(), "agg");
/// ```
#[derive(Clone, Debug)]
pub struct AggregateSpec {
    /// The key columns; none means that all rows are one group.
    pub keys: Vec<String>,
    /// The columns made of aggregates.
    pub columns: Vec<Named>,
    /// The windows, where there are any.
    pub window: Option<WindowSpec>,
}

/// An aggregation over known columns.
#[derive(Clone, Debug)]
pub(crate) struct Aggregation {
    /// Each call once, however often it was written.
    pub(crate) calls: Vec<AggregateCall>,
    /// The user's columns, as expressions over `output`.
    pub(crate) results: Vec<Named>,
    /// The window, the keys, and the result of each call.
    pub(crate) output: SchemaRef,
}

/// A call of an aggregate function, whose argument types are known.
#[derive(Clone, Debug)]
pub(crate) struct AggregateCall {
    pub(crate) aggregate: Aggregate,
    pub(crate) arguments: Vec<Expression>,
    /// Which rows it sees, where not all.
    pub(crate) filter: Option<Expression>,
    /// As it would be written in SQL.
    pub(crate) text: String,
}

impl Checked {
    /// What `spec` is over the rows of `input`.
    pub(crate) fn aggregation(&self, input: NodeId, spec: &AggregateSpec) -> Result<Aggregation> {
        let lost = || Error::internal("an aggregation that was checked has a mistake");
        spec.bind(self.schema(input)?).map_err(|mistakes| mistakes.into_iter().next().unwrap_or_else(lost))
    }

    /// The windows of `spec` over the rows of `input`, and how far in the future a time is believed.
    pub(crate) fn windows(&self, input: NodeId, spec: &WindowSpec) -> Result<(Windows, Duration)> {
        spec.bind(self.stream(input)?)
    }
}

impl AggregateSpec {
    /// The columns of the result, or everything that is wrong.
    pub(super) fn stream(&self, input: &Stream) -> Result<Stream, Vec<Error>> {
        let mut mistakes: Vec<Error> =
            self.window.iter().filter_map(|window| window.bind(input).err()).collect();
        match self.fields(&input.schema) {
            Ok(fields) if mistakes.is_empty() => {
                Ok(Stream::new(distinct(fields)?, Some(self.keys.clone()).filter(|keys| !keys.is_empty())))
            }
            Ok(_) => Err(mistakes),
            Err(found) => {
                mistakes.extend(found);
                Err(mistakes)
            }
        }
    }

    fn fields(&self, input: &Schema) -> Result<Vec<FieldRef>, Vec<Error>> {
        let Aggregation { calls, results, output } = self.bind(input)?;
        let before = output.fields().len() - calls.len();
        let mut fields: Vec<FieldRef> = output.fields().iter().take(before).cloned().collect();
        let mut mistakes = Vec::new();
        for result in &results {
            match result.expression.bind(&output) {
                Ok(bound) => fields.push(Arc::new(bound.field().clone().with_name(&result.name))),
                Err(found) => mistakes.extend(found),
            }
        }
        if mistakes.is_empty() { Ok(fields) } else { Err(mistakes) }
    }

    fn bind(&self, input: &Schema) -> Result<Aggregation, Vec<Error>> {
        let mut mistakes = self.check_keys(input).err().unwrap_or_default();
        let (calls, results) = match self.split() {
            Ok((calls, results)) => (calls, results),
            Err(found) => {
                mistakes.extend(found);
                mistakes.extend(self.call_mistakes(input));
                return Err(mistakes);
            }
        };
        let calls = self.bind_calls(calls, input).map_err(|found| mistakes.extend(found)).unwrap_or_default();
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let output = self.output(&calls, input)?;
        Ok(Aggregation { calls, results, output })
    }

    fn check_keys(&self, input: &Schema) -> Result<(), Vec<Error>> {
        find_all(input, &self.keys)?;
        match self.keys[..] {
            [] => Ok(()),
            _ => KeyEncoder::new(input, &self.keys).map(drop).map_err(one),
        }
    }

    /// The calls in all columns, and the columns as expressions over their results.
    fn split(&self) -> Result<(Vec<Call>, Vec<Named>), Vec<Error>> {
        if self.columns.is_empty() {
            let help = "name each result: agg(mean=col(\"t\").mean(), n=tm.count())";
            return Err(one(Error::config("agg needs at least one aggregate, found none").help(help)));
        }
        let expressions: Vec<Expression> =
            self.columns.iter().map(|column| column.expression.clone()).collect();
        let (calls, made) = split_all(&expressions, &self.visible())?;
        let named =
            |(column, expression): (&Named, Expression)| Named { name: column.name.clone(), expression };
        Ok((calls, self.columns.iter().zip(made).map(named).collect()))
    }

    /// The columns beside aggregates that a result may use.
    fn visible(&self) -> Vec<String> {
        let window = self.window.iter().flat_map(|_| [WINDOW_START.to_owned(), WINDOW_END.to_owned()]);
        window.chain(self.keys.iter().cloned()).collect()
    }

    fn bind_calls(&self, calls: Vec<Call>, input: &Schema) -> Result<Vec<AggregateCall>, Vec<Error>> {
        let scope = if self.window.is_some() { Scope::Window } else { Scope::Batch };
        let (mut bound, mut mistakes) = (Vec::new(), Vec::new());
        for call in calls {
            match bind_call(call, input, scope) {
                Ok(call) => bound.push(call),
                Err(found) => mistakes.extend(found),
            }
        }
        if mistakes.is_empty() { Ok(bound) } else { Err(mistakes) }
    }

    /// What is wrong with the calls of those columns that can be taken apart, where others cannot; each once.
    fn call_mistakes(&self, input: &Schema) -> Vec<Error> {
        let visible = self.visible();
        let alone = |column: &Named| split_all(std::slice::from_ref(&column.expression), &visible).ok();
        let calls = self.columns.iter().filter_map(alone);
        let mut found: Vec<Error> = Vec::new();
        for mistake in calls.filter_map(|(calls, _)| self.bind_calls(calls, input).err()).flatten() {
            if found.iter().all(|other| other.to_string() != mistake.to_string()) {
                found.push(mistake);
            }
        }
        found
    }

    fn output(&self, calls: &[AggregateCall], input: &Schema) -> Result<SchemaRef, Vec<Error>> {
        let mut fields = Vec::new();
        if let Some(window) = &self.window {
            // A window that does not fit its column is told by `WindowSpec::bind`.
            let data_type =
                input.field_with_name(&window.on).map_or(DataType::Null, |on| on.data_type().clone());
            fields.push(Arc::new(Field::new(WINDOW_START, data_type.clone(), false)));
            fields.push(Arc::new(Field::new(WINDOW_END, data_type, false)));
        }
        let key = |name: &String| input.fields().iter().find(|field| field.name() == name).cloned();
        fields.extend(self.keys.iter().filter_map(key));
        let result = |(call, number): (&AggregateCall, usize)| {
            Arc::new(call.aggregate.field().with_name(aggregate_column(number, &call.text)))
        };
        fields.extend(calls.iter().zip(0..).map(result));
        distinct(fields)
    }
}

fn bind_call(call: Call, input: &Schema, scope: Scope) -> Result<AggregateCall, Vec<Error>> {
    let (mut fields, mut mistakes) = (Vec::new(), Vec::new());
    for argument in &call.arguments {
        match argument.bind(input) {
            Ok(bound) => fields.push(bound.field().clone()),
            Err(found) => mistakes.extend(found),
        }
    }
    if let Some(Err(found)) = call.filter.as_ref().map(|filter| filter.bind_predicate(input)) {
        mistakes.extend(found.into_iter().map(|mistake| mistake.at(call.text.clone())));
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let aggregate = Aggregate::new(&call.name, &fields, &call.literals, call.distinct, scope);
    let aggregate = aggregate.map_err(|error| one(error.at(call.text.clone())))?;
    Ok(AggregateCall { aggregate, arguments: call.arguments, filter: call.filter, text: call.text })
}

impl WindowSpec {
    /// The windows over the event-time column of `input`, and how far in the future a time is believed.
    pub(super) fn bind(&self, input: &Stream) -> Result<(Windows, Duration)> {
        let max_future = self.max_future(self.event_time(input)?)?;
        let field = input.schema.field_with_name(&self.on)?;
        match field.data_type() {
            DataType::Timestamp(unit, _) => Ok((self.windows(*unit)?, max_future)),
            other => Err(Error::internal(format!("the event-time column is {other}"))),
        }
    }

    /// The windows over a column in `unit`; where they need a finer one, the error says which.
    fn windows(&self, unit: TimeUnit) -> Result<Windows> {
        let units = [TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];
        Windows::new(self.shape, unit).map_err(|error| {
            match units.into_iter().find(|finer| Windows::new(self.shape, *finer).is_ok()) {
                Some(finer) => {
                    let declared = type_name(&DataType::Timestamp(finer, None));
                    error.help(format!("declare the column as {declared}, or take longer times"))
                }
                None => error,
            }
        })
    }

    /// The rows without a place: all columns, and the reason.
    pub(super) fn late(&self, input: &Stream) -> Result<Stream, Vec<Error>> {
        self.bind(input).map_err(one)?;
        let reason = Arc::new(Field::new(LATE_REASON, DataType::Utf8, false));
        let fields = input.schema.fields().iter().cloned().chain([reason]).collect();
        Ok(Stream::new(distinct(fields)?, input.keys.clone()))
    }

    /// One for all rows. With the smaller, a row of the other source would move the watermark and come to no window; with
    /// the larger, one would come to a window that moves no watermark.
    fn max_future(&self, time: &TimeColumn) -> Result<Duration> {
        let Some(other) = time.other_max_future else { return Ok(time.max_future) };
        let message = format!(
            "window(on=\"{}\") needs one max_future for all its rows, found sources with {:?} and {other:?} in the union \
             before it",
            self.on, time.max_future
        );
        Err(Error::config(message).help("give the sources the same max_future"))
    }

    fn event_time<'a>(&self, input: &'a Stream) -> Result<&'a TimeColumn> {
        super::check::find(&input.schema, &self.on)?;
        let wanted = format!("window(on=\"{}\") needs the event-time column of its source", self.on);
        match &input.event_time {
            Some(event_time) if event_time.column == self.on => Ok(event_time),
            Some(event_time) => {
                let time = &event_time.column;
                let help = format!(
                    "pass on=\"{time}\", or name another of the source's columns with event_time=… there; a time that is \
                     computed is said at the source too: ctx.kafka(…).with_event_time(expr, watermark=…)"
                );
                Err(Error::config(format!("{wanted}, which is \"{time}\" here")).help(help))
            }
            None => {
                Err(Error::config(format!("{wanted}, and this stream has none")).help(self.no_event_time()))
            }
        }
    }

    /// What to do where the stream has no event time: what comes of `agg` never has, other streams may have lost it.
    fn no_event_time(&self) -> &'static str {
        if [WINDOW_START, WINDOW_END].contains(&self.on.as_str()) {
            return "windows over the results of agg are not offered yet: take all that you need from one \
                    window(…).agg(…), or add results up in foreach_batch(fn)";
        }
        "name it at the source, event_time=\"…\" or .with_event_time(expr, watermark=…), and leave the column as it is until \
         here: rename() it at most, and add columns with with_columns(…) or map_batches(fn, adds=…), since \
         map_batches(fn, schema=…) makes all anew"
    }
}
