//! A checked plan compiled into a [`Program`].
//!
//! Each step is bound to exactly the columns that are left after pruning. It deliberately runs nothing, and finds no
//! mistake that the check of the plan did not find.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};

use crate::decode::{DecodeSpec, Metadata, dead_letter_schema};
use crate::detect::DetectSpec;
use crate::error::{Error, Result};
use crate::exec::aggregate::calls::Calls;
use crate::exec::aggregate::place::Placer;
use crate::exec::aggregate::{AggregateStep, StateSchemas, WindowStep, state_form};
use crate::exec::detect;
use crate::exec::explode::{Explosion, Place};
use crate::exec::program::{
    Column, DeadProgram, Exchange, FunctionShape, FunctionStep, Moves, OperatorKind, OperatorSpec, Port,
    Program, RowExchange, Side, SourceProgram, Step, StepKind, TimedProgram,
};
use crate::exec::provenance::{Lineage, Sampler, is_provenance, shown, traces, tracing};
use crate::expr::Expression;
use crate::plan::{
    AggregateSpec, Aggregation, BatchFunction, Checked, FunctionSchema, LATE_REASON, Named, Node, NodeId,
    Operator, OutputId, SampleSpec, SourceId, WINDOW_START, WindowSpec,
};
use crate::provenance::{Descent, Draw};
use crate::state::form::StateForm;
use crate::state::key::KeyEncoder;
use crate::state::values::KeyDecoder;

impl Program {
    /// Compiles `checked`.
    pub(crate) fn compile(checked: &Checked) -> Result<Self> {
        Compiler::new(checked)?.compile()
    }
}

/// What the rows of an operator come from, while compiling.
#[derive(Clone, Copy, Default)]
struct Origin {
    stage: usize,
    /// The exchange after which the rows still lie in the shard of their key.
    exchange: Option<usize>,
    /// How many streams a union, or several, have made one.
    streams: u64,
}

struct Compiler<'a> {
    checked: &'a Checked,
    /// The columns of each operator that somebody reads, and last where its rows come from, where a sample asks.
    pruned: Vec<SchemaRef>,
    origins: Vec<Origin>,
    /// Of each operator with state.
    names: BTreeMap<NodeId, String>,
    /// Whose rows each port takes.
    wires: HashMap<usize, Vec<Port>>,
    /// Whose dead letters each port takes.
    dead_wires: HashMap<usize, Vec<Port>>,
    program: Program,
}

impl<'a> Compiler<'a> {
    fn new(checked: &'a Checked) -> Result<Self> {
        let plan = checked.plan().clone();
        let origins = vec![Origin::default(); plan.nodes.len()];
        let program = Program::new(plan);
        let (wires, dead_wires) = (HashMap::new(), HashMap::new());
        let traced = checked.traced();
        let pruned = checked.pruned()?.into_iter().enumerate();
        let pruned = pruned
            .map(|(place, schema)| if traced.contains(&NodeId(place)) { tracing(&schema) } else { schema })
            .collect();
        let names = checked.state_names()?;
        Ok(Self { checked, pruned, origins, names, wires, dead_wires, program })
    }

    /// Makes the steps of every operator in order, then wires them.
    fn compile(mut self) -> Result<Program> {
        let live = self.checked.live();
        let mut made = Vec::new();
        for (id, node) in self.checked.plan().iter().filter(|(id, _)| live.contains(id)) {
            let origin = self.origin(node);
            self.set_origin(id, origin);
            made.extend(self.operator(id, node, origin)?.into_iter().map(|port| (id, port)));
        }
        for (id, made) in made {
            self.connect(id, made);
        }
        Ok(self.program)
    }

    fn origin(&self, node: &Node) -> Origin {
        let inputs: Vec<Origin> =
            node.inputs.iter().filter_map(|input| self.origins.get(input.0)).copied().collect();
        let stage = inputs.iter().map(|origin| origin.stage).max().unwrap_or(0);
        let exchange = inputs.first().and_then(|origin| origin.exchange);
        let streams = inputs.iter().map(|origin| origin.streams).sum::<u64>().max(1);
        Origin { stage, exchange, streams }
    }

    fn set_origin(&mut self, id: NodeId, origin: Origin) {
        self.origins.get_mut(id.0).into_iter().for_each(|slot| *slot = origin);
    }

    /// Makes what `node` needs; the places whose rows are the operator's.
    fn operator(&mut self, id: NodeId, node: &Node, origin: Origin) -> Result<Vec<Made>> {
        let input = node.inputs.first().copied();
        match (&node.operator, input) {
            (Operator::Source(source), _) => self.source(id, *source).map(single),
            (Operator::DeadLetters(_), Some(input)) => self.dead_letters(id, input).map(single),
            (Operator::EventTime(_), Some(input)) => self.timed(input).map(single),
            (Operator::Filter(predicate), Some(input)) => {
                let bound = predicate.bind_predicate(self.columns(input)?).map_err(first)?;
                let kept = indices(self.columns(input)?, self.columns(id)?)?;
                self.step(id, input, StepKind::Filter(bound, kept)).map(single)
            }
            (Operator::Select(named) | Operator::WithColumns(named), Some(input)) => {
                self.project(id, input, named, &[]).map(single)
            }
            (Operator::Rename(names), Some(input)) => self.project(id, input, &[], names).map(single),
            (Operator::Drop(_), Some(input)) => self.project(id, input, &[], &[]).map(single),
            (Operator::Explode(names), Some(input)) => self.explode(id, input, names).map(single),
            (Operator::Sample(spec), Some(input)) => self.sample(id, input, *spec).map(single),
            (Operator::Union, Some(_)) => self.union(id, &node.inputs),
            (Operator::MapBatches { function, schema, reads, .. }, Some(input)) => {
                self.function(id, input, function, schema, reads.as_deref()).map(single)
            }
            (Operator::Repartition(parts), Some(input)) => self.deal(id, input, *parts, origin).map(single),
            (Operator::KeyBy(keys), Some(input)) => self.exchange(id, input, keys, origin).map(single),
            (Operator::Detect(spec), Some(input)) => self.detect(id, input, spec, origin).map(single),
            (Operator::Aggregate(spec), Some(input)) => self.aggregate(id, input, spec, origin).map(single),
            (Operator::Late(spec), Some(input)) => self.late(id, input, spec).map(single),
            (Operator::Output(output), Some(input)) => self.output(id, input, *output).map(|()| Vec::new()),
            (operator, None) => Err(Error::internal(format!("{} has no input", operator.name()))),
        }
    }

    fn source(&mut self, id: NodeId, source: SourceId) -> Result<Made> {
        let lost = || Error::internal(format!("the plan has no source {}", source.0));
        let spec = self.checked.plan().sources.get(source.0).ok_or_else(lost)?;
        let read = self.columns(id)?;
        let columns = read.fields().iter().map(|field| field.name().clone()).collect();
        let hidden = traces(read).then_some(Metadata::Provenance);
        let decode = DecodeSpec {
            format: spec.format.clone(),
            metadata: spec.metadata.iter().copied().chain(hidden).collect(),
            on_bad: spec.on_bad,
            event_time: spec.event_time.clone(),
            columns: Some(columns),
        };
        self.program.sources.push(SourceProgram {
            id: source,
            name: spec.name.clone(),
            decode,
            ports: Vec::new(),
            dead: self.dead_program(id)?,
            timed: self.timed_program(id, source)?,
        });
        Ok(Made::Source(self.program.sources.len() - 1))
    }

    /// The columns that the readers of the dead letters of the source at `id` read together; none where nobody does.
    fn dead_program(&self, id: NodeId) -> Result<Option<DeadProgram>> {
        let readers = self.checked.dead_letter_readers(id);
        let schemas = readers.iter().map(|reader| self.columns(*reader)).collect::<Result<Vec<_>>>()?;
        let names: BTreeSet<&String> =
            schemas.iter().flat_map(|schema| schema.fields().iter().map(|field| field.name())).collect();
        let columns = names.into_iter().cloned().collect();
        Ok((!readers.is_empty()).then_some(DeadProgram { columns, ports: Vec::new() }))
    }

    /// How the event time of the source at `id` is computed, where it is.
    fn timed_program(&self, id: NodeId, source: SourceId) -> Result<Option<TimedProgram>> {
        let Some((node, time)) = self.checked.computed_time(source) else { return Ok(None) };
        let (read, schema) = (self.columns(id)?, Arc::clone(self.columns(node)?));
        let place = |name: &String| {
            if *name == time.column.name { Ok(None) } else { index(read, name).map(Some) }
        };
        Ok(Some(TimedProgram {
            node,
            time: time.column.expression.bind(read).map_err(first)?,
            max_future: time.max_future,
            columns: schema.fields().iter().map(|field| place(field.name())).collect::<Result<_>>()?,
            schema,
            ports: Vec::new(),
        }))
    }

    /// The rows with the event time of the source at `input`.
    fn timed(&self, input: NodeId) -> Result<Made> {
        let lost = || Error::internal("an event time is computed of no source");
        let Operator::Source(source) = self.checked.plan().node(input)?.operator else { return Err(lost()) };
        let place = self.program.sources.iter().position(|made| made.id == source);
        place.map(Made::Timed).ok_or_else(lost)
    }

    /// Of the dead letters of the source at `input`, whose columns are those that all readers read, this one's.
    fn dead_letters(&mut self, id: NodeId, input: NodeId) -> Result<Made> {
        let read = self.dead_program(input)?.map(|dead| dead.columns).unwrap_or_default();
        let all = tracing(&dead_letter_schema());
        let made = all.fields().iter().filter(|field| read.contains(field.name())).cloned();
        let made = Schema::new(made.collect::<Vec<_>>());
        let columns = indices(&made, self.columns(id)?)?.into_iter().map(Column::Input).collect();
        let place = self.push_step(id, StepKind::Project(columns))?;
        self.dead_wires.entry(input.0).or_default().push(Port::Step(place));
        Ok(Made::Step(place))
    }

    fn step(&mut self, id: NodeId, input: NodeId, kind: StepKind) -> Result<Made> {
        let place = self.push_step(id, kind)?;
        self.wire(input, Port::Step(place));
        Ok(Made::Step(place))
    }

    fn push_step(&mut self, id: NodeId, kind: StepKind) -> Result<usize> {
        let schema = Arc::clone(self.columns(id)?);
        self.program.steps.push(Step { node: id, kind, schema, ports: Vec::new() });
        Ok(self.program.steps.len() - 1)
    }

    /// The columns of `id` that are read: each computed by its expression, or the input's of the same (old) name.
    fn project(
        &mut self,
        id: NodeId,
        input: NodeId,
        named: &[Named],
        renames: &[(String, String)],
    ) -> Result<Made> {
        let source = self.columns(input)?;
        let column = |name: &String| -> Result<Column> {
            if let Some(column) = named.iter().find(|column| column.name == *name) {
                return column_of(&column.expression, source);
            }
            let old = renames.iter().find(|(_, new)| new == name).map_or(name, |(old, _)| old);
            index(source, old).map(Column::Input)
        };
        let columns: Result<Vec<Column>> =
            self.columns(id)?.fields().iter().map(|f| column(f.name())).collect();
        self.step(id, input, StepKind::Project(columns?))
    }

    fn sample(&mut self, id: NodeId, input: NodeId, spec: SampleSpec) -> Result<Made> {
        let source = self.columns(input)?;
        let place = index(source, Metadata::Provenance.name())?;
        let column = |field: &FieldRef| match index(source, field.name())? {
            // The next sample draws anew, also where it has the same seed.
            hidden if hidden == place => Ok(Column::Provenance(Lineage::Row(place, Descent::Sample, 0))),
            shown => Ok(Column::Input(shown)),
        };
        let columns = self.columns(id)?.fields().iter().map(column).collect::<Result<_>>()?;
        let sampler = Sampler { draw: Draw::new(spec.fraction, spec.seed.value()), place };
        self.step(id, input, StepKind::Sample(sampler, columns))
    }

    /// The rows of each input. Those of the first come from where they came from, the others' from there and through the
    /// union, by as many as there are streams before them: a row that comes twice, through whatever unions, is drawn
    /// twice.
    fn union(&mut self, id: NodeId, inputs: &[NodeId]) -> Result<Vec<Made>> {
        let (mut made, mut number) = (Vec::new(), 0);
        for input in inputs {
            let source = self.columns(*input)?;
            let column = |field: &FieldRef| match index(source, field.name())? {
                place if number > 0 && is_provenance(field) => {
                    Ok(Column::Provenance(Lineage::Row(place, Descent::Input, number)))
                }
                place => Ok(Column::Input(place)),
            };
            let columns = self.columns(id)?.fields().iter().map(column).collect::<Result<_>>()?;
            made.push(self.step(id, *input, StepKind::Project(columns))?);
            number += self.origins.get(input.0).map_or(1, |origin| origin.streams);
        }
        Ok(made)
    }

    /// An output takes rows without where they come from.
    fn output(&mut self, id: NodeId, input: NodeId, output: OutputId) -> Result<()> {
        let source = self.columns(input)?;
        if !traces(source) {
            self.wire(input, Port::Output(output));
            return Ok(());
        }
        let shown = shown(source);
        let columns = indices(source, &shown)?.into_iter().map(Column::Input).collect();
        let (kind, ports) = (StepKind::Project(columns), vec![Port::Output(output)]);
        self.program.steps.push(Step { node: id, kind, schema: shown, ports });
        self.wire(input, Port::Step(self.program.steps.len() - 1));
        Ok(())
    }

    fn explode(&mut self, id: NodeId, input: NodeId, names: &[String]) -> Result<Made> {
        let source = self.columns(input)?;
        let lists = names.iter().map(|name| index(source, name)).collect::<Result<_>>()?;
        let place = |field: &FieldRef| match names.iter().position(|list| list == field.name()) {
            Some(list) => Ok(Place::Elements(list)),
            None if is_provenance(field) => index(source, field.name()).map(Place::Provenance),
            None => index(source, field.name()).map(Place::Input),
        };
        let kept = self.columns(id)?.fields().iter().map(place).collect::<Result<_>>()?;
        self.step(id, input, StepKind::Explode(Explosion { lists, kept }))
    }

    fn function(
        &mut self,
        id: NodeId,
        input: NodeId,
        function: &Arc<dyn BatchFunction>,
        schema: &FunctionSchema,
        reads: Option<&[String]>,
    ) -> Result<Made> {
        let (source, own) = (Arc::clone(self.columns(input)?), Arc::clone(self.columns(id)?));
        let shape = match schema {
            FunctionSchema::Same => replaces(&source, shown(&source), &own)?,
            FunctionSchema::Exactly(result) => replaces(&source, Arc::clone(result), &own)?,
            FunctionSchema::Adds(added) => appends(&source, added, &own, reads)?,
        };
        let stage = self.origins.get(id.0).map_or(0, |origin| origin.stage);
        let step = FunctionStep {
            node: id,
            function: Arc::clone(function),
            stage,
            input: source,
            shape,
            schema: own,
            ports: Vec::new(),
        };
        self.program.functions.push(step);
        let place = self.program.functions.len() - 1;
        self.wire(input, Port::Function(place));
        Ok(Made::Function(place))
    }

    /// An exchange, or nothing but a projection where the rows lie in the shards of these keys already.
    fn exchange(&mut self, id: NodeId, input: NodeId, keys: &[String], origin: Origin) -> Result<Made> {
        if origin.exchange.is_some() && self.checked.keys(input)? == Some(keys) {
            return self.project(id, input, &[], &[]);
        }
        let (source, own) = (self.columns(input)?, Arc::clone(self.columns(id)?));
        let encoder = KeyEncoder::new(source, keys)?; // its own columns may lack the keys, where nobody reads them
        let columns = indices(source, &own)?;
        let moves = Moves::Rows(RowExchange { columns, encoder, schema: own, parts: None });
        Ok(Made::Exchange(self.add_exchange(id, input, moves, origin)))
    }

    /// An exchange by where each row comes from, which is as even as a hash.
    fn deal(
        &mut self,
        id: NodeId,
        input: NodeId,
        parts: Option<NonZeroUsize>,
        origin: Origin,
    ) -> Result<Made> {
        let (source, own) = (self.columns(input)?, Arc::clone(self.columns(id)?));
        let encoder = KeyEncoder::new(source, &[Metadata::Provenance.name().to_owned()])?;
        let columns = indices(source, &own)?;
        let moves = Moves::Rows(RowExchange { columns, encoder, schema: own, parts });
        Ok(Made::Exchange(self.add_exchange(id, input, moves, origin)))
    }

    fn add_exchange(&mut self, id: NodeId, input: NodeId, moves: Moves, origin: Origin) -> usize {
        let stage = origin.stage + 1;
        self.program.exchanges.push(Exchange { stage, moves, ports: Vec::new(), node: id });
        let place = self.program.exchanges.len() - 1;
        self.set_origin(id, Origin { stage, exchange: Some(place), ..origin });
        self.wire(input, Port::Exchange(place));
        place
    }

    fn detect(&mut self, id: NodeId, input: NodeId, spec: &DetectSpec, origin: Origin) -> Result<Made> {
        let lost = || Error::internal("detect has no exchange before it");
        if origin.exchange.is_none() {
            return Err(lost());
        }
        let source = Arc::clone(self.columns(input)?);
        let keys = self.checked.keys(input)?.ok_or_else(lost)?;
        let encoder = KeyEncoder::new(&source, keys)?;
        let fields = source
            .fields()
            .iter()
            .cloned()
            .chain(spec.output_fields().into_iter().map(Arc::new))
            .collect::<Vec<_>>();
        let kept = indices(&Schema::new(fields), self.columns(id)?)?;
        let form = Some(detect::state_form(spec, &encoder.text())?);
        let operator = self.add_operator(id, OperatorKind::Detect(spec.clone(), source), form, Vec::new())?;
        self.step(id, input, StepKind::Keyed(operator, encoder, kept))
    }

    fn add_operator(
        &mut self,
        node: NodeId,
        kind: OperatorKind,
        form: Option<StateForm>,
        unkept: Vec<String>,
    ) -> Result<usize> {
        let lost = || Error::internal("an operator with state has no name");
        let name = self.names.get(&node).cloned().ok_or_else(lost)?;
        self.program.operators.push(OperatorSpec { node, kind, name, form, unkept });
        Ok(self.program.operators.len() - 1)
    }

    /// An exchange of partials, and the projection that makes the columns the user named of the calls' results.
    fn aggregate(&mut self, id: NodeId, input: NodeId, spec: &AggregateSpec, origin: Origin) -> Result<Made> {
        let bound = self.checked.aggregation(input, spec)?;
        let step = Arc::new(self.aggregate_step(input, spec, &bound)?);
        let unkept = bound.calls.iter().filter(|call| call.aggregate.form().is_none());
        let unkept = unkept.map(|call| call.text.clone()).collect();
        let form = step.form.clone();
        let operator = self.add_operator(id, OperatorKind::Aggregate(Arc::clone(&step)), form, unkept)?;
        let exchange = self.add_exchange(id, input, Moves::Partials(Arc::clone(&step), operator), origin);
        let columns = self.result_columns(id, spec, &bound.results, &step.output)?;
        let project = self.push_step(id, StepKind::Project(columns))?;
        if let Some(exchange) = self.program.exchanges.get_mut(exchange) {
            exchange.ports.push(Port::Step(project));
        }
        Ok(Made::Step(project))
    }

    fn aggregate_step(
        &self,
        input: NodeId,
        spec: &AggregateSpec,
        bound: &Aggregation,
    ) -> Result<AggregateStep> {
        let source = self.columns(input)?;
        let place = |name: &String| index(source, name);
        let key = |name: &String| Ok(Arc::clone(source.fields().get(place(name)?).ok_or_else(lost_column)?));
        let keys = spec.keys.iter().map(key).collect::<Result<Vec<_>>>()?;
        let encoder = match spec.keys[..] {
            [] => KeyEncoder::of_all(),
            _ => KeyEncoder::new(source, &spec.keys)?,
        };
        let window = match &spec.window {
            Some(window) => Some(self.window_step(input, window)?),
            None => None,
        };
        let on = window.as_ref().map(|window| window.placer.on);
        let calls = Calls::bind(&bound.calls, source, on)?;
        let (schemas, output) = (StateSchemas::of(&calls), Arc::clone(&bound.output));
        let form = spec.window.as_ref().zip(window.as_ref()).map(|(spec, step)| {
            state_form(spec, &step.data_type, &encoder.text(), &bound.calls, &schemas.states)
        });
        Ok(AggregateStep { encoder, decoder: KeyDecoder::new(keys), window, calls, schemas, output, form })
    }

    fn window_step(&self, input: NodeId, spec: &WindowSpec) -> Result<WindowStep> {
        let placer = self.placer(input, spec)?;
        let field = self.columns(input)?.fields().get(placer.on).ok_or_else(lost_column)?;
        Ok(WindowStep { placer, data_type: field.data_type().clone(), emit: spec.emit })
    }

    fn placer(&self, input: NodeId, spec: &WindowSpec) -> Result<Placer> {
        let (windows, max_future) = self.checked.windows(input, spec)?;
        Ok(Placer { windows, on: index(self.columns(input)?, &spec.on)?, max_future })
    }

    /// The columns of `id` that are read, made of the results of an aggregation.
    fn result_columns(
        &self,
        id: NodeId,
        spec: &AggregateSpec,
        results: &[Named],
        from: &SchemaRef,
    ) -> Result<Vec<Column>> {
        let column = |field: &FieldRef| match results.iter().find(|result| result.name == *field.name()) {
            Some(result) => column_of(&result.expression, from),
            None if is_provenance(field) => lineage_of_results(spec, from).map(Column::Provenance),
            None => index(from, field.name()).map(Column::Input),
        };
        self.columns(id)?.fields().iter().map(column).collect()
    }

    /// Marks the rows without a place in the windows, in the stage in which they are.
    fn late(&mut self, id: NodeId, input: NodeId, spec: &WindowSpec) -> Result<Made> {
        let source = self.columns(input)?;
        let place = |name: &String| match name.as_str() {
            LATE_REASON => Ok(None),
            _ => index(source, name).map(Some),
        };
        let columns = self.columns(id)?.fields().iter().map(|field| place(field.name()));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        self.step(id, input, StepKind::Late(self.placer(input, spec)?, columns))
    }

    fn columns(&self, node: NodeId) -> Result<&SchemaRef> {
        self.pruned.get(node.0).ok_or_else(|| Error::internal(format!("the plan has no operator {}", node.0)))
    }

    /// Has the rows of `from` go to `port`.
    fn wire(&mut self, from: NodeId, port: Port) {
        self.wires.entry(from.0).or_default().push(port);
    }

    /// Gives what was made for `id` the ports that read it.
    fn connect(&mut self, id: NodeId, made: Made) {
        let ports = self.wires.get(&id.0).cloned().unwrap_or_default();
        let program = &mut self.program;
        if let Made::Source(place) = made {
            let dead = program.sources.get_mut(place).and_then(|source| source.dead.as_mut());
            let wires = self.dead_wires.get(&id.0).cloned().unwrap_or_default();
            if let Some(dead) = dead {
                dead.ports = wires;
            }
        }
        let place = match made {
            Made::Source(place) => program.sources.get_mut(place).map(|source| &mut source.ports),
            Made::Timed(place) => {
                let timed = program.sources.get_mut(place).and_then(|source| source.timed.as_mut());
                timed.map(|timed| &mut timed.ports)
            }
            Made::Step(place) => program.steps.get_mut(place).map(|step| &mut step.ports),
            Made::Function(place) => program.functions.get_mut(place).map(|function| &mut function.ports),
            Made::Exchange(place) => program.exchanges.get_mut(place).map(|exchange| &mut exchange.ports),
        };
        if let Some(place) = place {
            *place = ports;
        }
    }
}

/// What an operator was compiled into.
#[derive(Clone, Copy)]
enum Made {
    Source(usize),
    /// The rows of this source with their event time.
    Timed(usize),
    Step(usize),
    Function(usize),
    Exchange(usize),
}

fn single(made: Made) -> Vec<Made> {
    vec![made]
}

/// A column that is passed on, or computed.
fn column_of(expression: &Expression, from: &SchemaRef) -> Result<Column> {
    let bound = expression.bind(from).map_err(first)?;
    Ok(passed(expression, from).map_or(Column::Computed(Box::new(bound)), Column::Input))
}

fn lost_column() -> Error {
    Error::internal("a column that an aggregation reads was pruned")
}

fn first(mistakes: Vec<Error>) -> Error {
    mistakes
        .into_iter()
        .next()
        .unwrap_or_else(|| Error::internal("an expression failed to bind without a reason"))
}

fn replaces(source: &SchemaRef, result: SchemaRef, own: &SchemaRef) -> Result<FunctionShape> {
    let (given, kept) = (indices(source, &shown(source))?, indices(&result, &shown(own))?);
    let provenance = traces(own).then(|| index(source, Metadata::Provenance.name())).transpose()?;
    Ok(FunctionShape::Replaces { given, result, kept, provenance })
}

fn appends(
    source: &SchemaRef,
    added: &SchemaRef,
    own: &Schema,
    reads: Option<&[String]>,
) -> Result<FunctionShape> {
    let given = match reads {
        Some(reads) => reads.iter().map(|name| index(source, name)).collect::<Result<_>>()?,
        None => indices(source, &shown(source))?,
    };
    let side = |name: &String| match added.index_of(name) {
        Ok(place) => Ok(Side::Added(place)),
        Err(_) => index(source, name).map(Side::Input),
    };
    let kept = own.fields().iter().map(|field| side(field.name())).collect::<Result<_>>()?;
    Ok(FunctionShape::Appends { given, added: Arc::clone(added), kept })
}

/// Where the results of an aggregation come from.
fn lineage_of_results(spec: &AggregateSpec, output: &SchemaRef) -> Result<Lineage> {
    let start = spec.window.iter().map(|_| WINDOW_START.to_owned());
    let key: Vec<String> = start.chain(spec.keys.iter().cloned()).collect();
    let encoder = if key.is_empty() { KeyEncoder::of_all() } else { KeyEncoder::new(output, &key)? };
    Ok(if spec.window.is_some() { Lineage::Window(encoder) } else { Lineage::Batch(encoder) })
}

/// The input column that `expression` merely passes on.
fn passed(expression: &Expression, schema: &Schema) -> Option<usize> {
    schema.index_of(expression.as_column()?).ok()
}

fn index(schema: &Schema, name: &str) -> Result<usize> {
    schema
        .index_of(name)
        .map_err(|_| Error::internal(format!("the column \"{name}\" was pruned though it is read")))
}

fn indices(from: &Schema, wanted: &Schema) -> Result<Vec<usize>> {
    wanted.fields().iter().map(|field| index(from, field.name())).collect()
}
