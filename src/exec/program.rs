//! A checked plan compiled into fused steps between barriers.
//!
//! Each step is bound to exactly the columns that are left after pruning. Nothing runs here: `pipeline` runs the
//! steps, `executor` decides when.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use crate::decode::DecodeSpec;
use crate::detect::DetectSpec;
use crate::error::{Error, Result};
use crate::exec::detect::DetectOperator;
use crate::exec::keyed::KeyedOperator;
use crate::expr::{Bound, Expression, Predicate};
use crate::plan::{
    BatchFunction, Checked, FunctionSchema, Named, Node, NodeId, Operator, OutputId, Plan, SourceId,
};
use crate::state::key::KeyEncoder;

/// Where the rows of a step go next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Step(usize),
    Function(usize),
    Exchange(usize),
    Output(OutputId),
}

/// A compiled plan.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) sources: Vec<SourceProgram>,
    pub(crate) steps: Vec<Step>,
    pub(crate) functions: Vec<FunctionStep>,
    pub(crate) exchanges: Vec<Exchange>,
    pub(crate) keyed: Vec<KeyedSpec>,
    plan: Plan,
}

/// How a source's chunks become rows, and where these go.
#[derive(Debug)]
pub(crate) struct SourceProgram {
    pub(crate) id: SourceId,
    pub(crate) decode: DecodeSpec,
    pub(crate) ports: Vec<Port>,
}

/// One fused step over a chunk of rows.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) node: NodeId,
    pub(crate) kind: StepKind,
    pub(crate) schema: SchemaRef,
    pub(crate) ports: Vec<Port>,
}

#[derive(Debug)]
pub(crate) enum StepKind {
    /// Keeps the rows for which the predicate holds, and of them these columns.
    Filter(Predicate, Vec<usize>),
    /// Makes each column anew or passes it on.
    Project(Vec<Column>),
    /// Runs the keyed operator of this number, then keeps these columns.
    Keyed(usize, KeyEncoder, Vec<usize>),
}

/// Where a column of a projection comes from.
#[derive(Debug)]
pub(crate) enum Column {
    Input(usize),
    Computed(Box<Bound>),
}

/// A user's function: a barrier at which the rows of a slot come together.
#[derive(Debug)]
pub(crate) struct FunctionStep {
    pub(crate) node: NodeId,
    pub(crate) function: Arc<dyn BatchFunction>,
    /// The stage after which its input is complete.
    pub(crate) stage: usize,
    pub(crate) input: SchemaRef,
    pub(crate) shape: FunctionShape,
    pub(crate) schema: SchemaRef,
    pub(crate) ports: Vec<Port>,
}

/// What a function is given and what becomes of its result.
#[derive(Debug)]
pub(crate) enum FunctionShape {
    /// It is given all columns; of its result, these are kept.
    Replaces { result: SchemaRef, kept: Vec<usize> },
    /// It is given these columns; of the input and its result side by side, those are kept.
    Appends { given: Vec<usize>, added: SchemaRef, kept: Vec<Side> },
}

/// A column of the input, or one of those that a function added.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Input(usize),
    Added(usize),
}

/// A barrier at which rows go to the shard of their key.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// From 1: one more than the latest stage of its inputs.
    pub(crate) stage: usize,
    pub(crate) columns: Vec<usize>,
    pub(crate) schema: SchemaRef,
    pub(crate) encoder: KeyEncoder,
    pub(crate) ports: Vec<Port>,
    pub(crate) node: NodeId,
}

/// A stateful operator, of which every shard of its exchange has one.
#[derive(Debug)]
pub(crate) struct KeyedSpec {
    spec: DetectSpec,
    schema: SchemaRef,
}

impl KeyedSpec {
    /// The operator without any state.
    pub(crate) fn build(&self) -> Result<Box<dyn KeyedOperator>> {
        Ok(Box::new(DetectOperator::new(self.spec.clone(), &self.schema)?))
    }
}

impl Program {
    /// Compiles `checked`.
    pub(crate) fn compile(checked: &Checked) -> Result<Self> {
        Compiler::new(checked)?.compile()
    }

    /// The last stage: 0 where no exchange is.
    pub(crate) fn last_stage(&self) -> usize {
        self.exchanges.iter().map(|exchange| exchange.stage).max().unwrap_or(0)
    }

    /// Says where in the user's script an operator that failed was written.
    pub(crate) fn locate(&self, node: NodeId, error: Error) -> Error {
        match self.plan.node(node) {
            Ok(node) => node.locate(error),
            Err(lost) => lost,
        }
    }
}

/// What the rows of an operator come from, while compiling.
#[derive(Clone, Copy, Default)]
struct Origin {
    stage: usize,
    /// The exchange after which the rows still lie in the shard of their key.
    exchange: Option<usize>,
}

struct Compiler<'a> {
    checked: &'a Checked,
    /// The columns of each operator that somebody reads.
    pruned: Vec<SchemaRef>,
    origins: Vec<Origin>,
    /// Whose rows each port takes.
    wires: HashMap<usize, Vec<Port>>,
    program: Program,
}

impl<'a> Compiler<'a> {
    fn new(checked: &'a Checked) -> Result<Self> {
        let plan = checked.plan().clone();
        let program = Program {
            sources: Vec::new(),
            steps: Vec::new(),
            functions: Vec::new(),
            exchanges: Vec::new(),
            keyed: Vec::new(),
            plan,
        };
        let origins = vec![Origin::default(); program.plan.nodes.len()];
        Ok(Self { checked, pruned: checked.pruned()?, origins, wires: HashMap::new(), program })
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
        Origin { stage, exchange }
    }

    fn set_origin(&mut self, id: NodeId, origin: Origin) {
        self.origins.get_mut(id.0).into_iter().for_each(|slot| *slot = origin);
    }

    /// Makes what `node` needs; the places whose rows are the operator's.
    fn operator(&mut self, id: NodeId, node: &Node, origin: Origin) -> Result<Vec<Made>> {
        let input = node.inputs.first().copied();
        match (&node.operator, input) {
            (Operator::Source(source), _) => self.source(id, *source).map(single),
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
            (Operator::Union, Some(_)) => {
                node.inputs.iter().map(|input| self.project(id, *input, &[], &[])).collect()
            }
            (Operator::MapBatches { function, schema, reads, .. }, Some(input)) => {
                self.function(id, input, function, schema, reads.as_deref()).map(single)
            }
            (Operator::KeyBy(keys), Some(input)) => self.exchange(id, input, keys, origin).map(single),
            (Operator::Detect(spec), Some(input)) => self.detect(id, input, spec, origin).map(single),
            (Operator::Output(output), Some(input)) => {
                self.wire(input, Port::Output(*output));
                Ok(Vec::new())
            }
            (operator, None) => Err(Error::internal(format!("{} has no input", operator.name()))),
        }
    }

    fn source(&mut self, id: NodeId, source: SourceId) -> Result<Made> {
        let lost = || Error::internal(format!("the plan has no source {}", source.0));
        let spec = self.checked.plan().sources.get(source.0).ok_or_else(lost)?;
        let columns = self.columns(id)?.fields().iter().map(|field| field.name().clone()).collect();
        let decode = DecodeSpec {
            format: spec.format.clone(),
            metadata: spec.metadata.clone(),
            on_bad: spec.on_bad,
            event_time: spec.event_time.clone(),
            columns: Some(columns),
        };
        self.program.sources.push(SourceProgram { id: source, decode, ports: Vec::new() });
        Ok(Made::Source(self.program.sources.len() - 1))
    }

    fn step(&mut self, id: NodeId, input: NodeId, kind: StepKind) -> Result<Made> {
        let schema = Arc::clone(self.columns(id)?);
        self.program.steps.push(Step { node: id, kind, schema, ports: Vec::new() });
        let place = self.program.steps.len() - 1;
        self.wire(input, Port::Step(place));
        Ok(Made::Step(place))
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
                let bound = column.expression.bind(source).map_err(first)?;
                return Ok(passed(&column.expression, source)
                    .map_or(Column::Computed(Box::new(bound)), Column::Input));
            }
            let old = renames.iter().find(|(_, new)| new == name).map_or(name, |(old, _)| old);
            index(source, old).map(Column::Input)
        };
        let columns: Result<Vec<Column>> =
            self.columns(id)?.fields().iter().map(|f| column(f.name())).collect();
        self.step(id, input, StepKind::Project(columns?))
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
        let replaces = |result: &SchemaRef| -> Result<FunctionShape> {
            Ok(FunctionShape::Replaces { result: Arc::clone(result), kept: indices(result, &own)? })
        };
        let shape = match schema {
            FunctionSchema::Same => replaces(&source)?,
            FunctionSchema::Exactly(result) => replaces(result)?,
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
        let exchange = Exchange {
            stage: origin.stage + 1,
            columns: indices(source, &own)?,
            encoder: KeyEncoder::new(&own, keys)?,
            schema: own,
            ports: Vec::new(),
            node: id,
        };
        let stage = exchange.stage;
        self.program.exchanges.push(exchange);
        let place = self.program.exchanges.len() - 1;
        self.set_origin(id, Origin { stage, exchange: Some(place) });
        self.wire(input, Port::Exchange(place));
        Ok(Made::Exchange(place))
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
        self.program.keyed.push(KeyedSpec { spec: spec.clone(), schema: source });
        self.step(id, input, StepKind::Keyed(self.program.keyed.len() - 1, encoder, kept))
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
        let place = match made {
            Made::Source(place) => program.sources.get_mut(place).map(|source| &mut source.ports),
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
    Step(usize),
    Function(usize),
    Exchange(usize),
}

fn single(made: Made) -> Vec<Made> {
    vec![made]
}

fn first(mistakes: Vec<Error>) -> Error {
    mistakes
        .into_iter()
        .next()
        .unwrap_or_else(|| Error::internal("an expression failed to bind without a reason"))
}

fn appends(
    source: &Schema,
    added: &SchemaRef,
    own: &Schema,
    reads: Option<&[String]>,
) -> Result<FunctionShape> {
    let given = match reads {
        Some(reads) => reads.iter().map(|name| index(source, name)).collect::<Result<_>>()?,
        None => (0..source.fields().len()).collect(),
    };
    let side = |name: &String| match added.index_of(name) {
        Ok(place) => Ok(Side::Added(place)),
        Err(_) => index(source, name).map(Side::Input),
    };
    let kept = own.fields().iter().map(|field| side(field.name())).collect::<Result<_>>()?;
    Ok(FunctionShape::Appends { given, added: Arc::clone(added), kept })
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
