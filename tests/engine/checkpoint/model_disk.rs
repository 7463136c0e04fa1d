//! A disk that forgets what was not synced: a model of what a loss of power may leave behind.
//!
//! It deliberately promises no more than POSIX does. A file's content is durable when that file was synced, a name when
//! the directory that it is in was; of everything else any part may be lost, in any order, but that what happened to one
//! name happened in its order. File systems keep more than this, each something else.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, MutexGuard};

use tidemill::checkpoint::replica::disk::{self, Disk, DiskFile, Entry, EntryKind, Identity};

/// The number of a file or directory.
type Node = usize;

const ROOT: Node = 0;

/// Everything on the disk, as programs see it and as it would be found after a loss of power.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    nodes: Vec<Content>,
}

#[derive(Clone, Debug)]
enum Content {
    File { bytes: Vec<u8>, durable: Vec<u8> },
    Directory(Directory),
}

#[derive(Clone, Debug, Default)]
struct Directory {
    names: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
    /// What was done to names since the last sync: the node that has the name, or none.
    pending: Vec<(String, Option<Node>)>,
}

/// Something that a loss of power decides.
#[derive(Clone, Debug)]
enum Question {
    /// How many of so many changes to a name of a directory got through.
    Name { directory: Node, name: String, changes: usize },
    /// What is left of a file whose content was not synced.
    Content(Node),
}

/// What may be left of a file: nothing, its old content, half of the new, zeros in the length of the new, or all of it.
const CONTENTS: usize = 5;

impl Model {
    pub(crate) fn new() -> Self {
        Self { nodes: vec![Content::Directory(Directory::default())] }
    }

    /// How many answers each question has that a loss of power asks now.
    pub(crate) fn choices(&self) -> Vec<usize> {
        let count = |question: &Question| match question {
            Question::Name { changes, .. } => changes + 1,
            Question::Content(_) => CONTENTS,
        };
        self.questions().iter().map(count).collect()
    }

    fn questions(&self) -> Vec<Question> {
        let mut questions = Vec::new();
        for (node, content) in self.nodes.iter().enumerate() {
            match content {
                Content::File { bytes, durable } if bytes != durable => {
                    questions.push(Question::Content(node));
                }
                Content::File { .. } => {}
                Content::Directory(directory) => questions.extend(directory.questions(node)),
            }
        }
        questions
    }

    /// The disk after a loss of power with these answers, one a question.
    pub(crate) fn after_power_loss(&self, answers: &[usize]) -> Self {
        let mut after = self.clone();
        for (question, answer) in self.questions().into_iter().zip(answers) {
            after.answer(question, *answer);
        }
        for content in &mut after.nodes {
            match content {
                Content::File { bytes, durable } => bytes.clone_from(durable),
                Content::Directory(directory) => {
                    directory.names.clone_from(&directory.durable);
                    directory.pending.clear();
                }
            }
        }
        after
    }

    fn answer(&mut self, question: Question, answer: usize) {
        match (question, &mut self.nodes) {
            (Question::Name { directory, name, .. }, nodes) => {
                let Content::Directory(directory) = &mut nodes[directory] else {
                    unreachable!("asked of one")
                };
                directory.keep(&name, answer);
            }
            (Question::Content(file), nodes) => {
                let Content::File { bytes, durable } = &mut nodes[file] else { unreachable!("asked of one") };
                match answer {
                    0 => durable.clear(),
                    1 => {}
                    2 => *durable = bytes[..bytes.len() / 2].to_vec(),
                    3 => *durable = vec![0; bytes.len()],
                    _ => durable.clone_from(bytes),
                }
            }
        }
    }

    fn find(&self, path: &Path) -> io::Result<Node> {
        let parts = path.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_str().expect("names of the tests are text")),
            _ => None,
        });
        let mut node = ROOT;
        for name in parts {
            node = *self.directory(node)?.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    fn directory(&self, node: Node) -> io::Result<&Directory> {
        match &self.nodes[node] {
            Content::Directory(directory) => Ok(directory),
            Content::File { .. } => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn directory_mut(&mut self, node: Node) -> io::Result<&mut Directory> {
        match &mut self.nodes[node] {
            Content::Directory(directory) => Ok(directory),
            Content::File { .. } => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// The directory that `path` is in, and its name there.
    fn place(&self, path: &Path) -> io::Result<(Node, String)> {
        let name = path.file_name().ok_or(io::ErrorKind::AlreadyExists)?;
        let above = path.parent().ok_or(io::ErrorKind::AlreadyExists)?;
        Ok((self.find(above)?, name.to_str().expect("names of the tests are text").to_owned()))
    }

    /// Gives a name that is free to a node.
    fn name(&mut self, path: &Path, node: Option<Node>, content: Option<Content>) -> io::Result<Node> {
        let (directory, name) = self.place(path)?;
        if self.directory(directory)?.names.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = node.unwrap_or(self.nodes.len());
        self.nodes.extend(content);
        self.directory_mut(directory)?.change(name, Some(node));
        Ok(node)
    }
}

impl Directory {
    fn change(&mut self, name: String, node: Option<Node>) {
        match node {
            Some(node) => self.names.insert(name.clone(), node),
            None => self.names.remove(&name),
        };
        self.pending.push((name, node));
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.names);
        self.pending.clear();
    }

    /// Lets the first `changes` changes to a name get through.
    fn keep(&mut self, name: &str, changes: usize) {
        let of_name: Vec<Option<Node>> =
            self.pending.iter().filter(|(changed, _)| changed == name).map(|(_, node)| *node).collect();
        match of_name[..changes].last() {
            Some(Some(node)) => drop(self.durable.insert(name.to_owned(), *node)),
            Some(None) => drop(self.durable.remove(name)),
            None => {}
        }
    }

    fn questions(&self, node: Node) -> Vec<Question> {
        let mut changes = BTreeMap::<&String, usize>::new();
        self.pending.iter().for_each(|(name, _)| *changes.entry(name).or_default() += 1);
        let ask = |(name, changes): (&String, usize)| Question::Name {
            directory: node,
            name: name.clone(),
            changes,
        };
        changes.into_iter().map(ask).collect()
    }
}

/// What a disk does not do that it says it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// Nothing: it does what it says.
    None,
    /// Files are not synced.
    Files,
    /// Directories are not synced.
    Directories,
    /// The directories in which other directories are made are not synced.
    NewDirectories,
    /// A directory is synced only if this process has changed it since it last synced it: as when only the process that
    /// makes a name sees to it.
    OthersNames,
}

/// A disk that one process has open.
#[derive(Clone, Debug)]
pub(crate) struct ModelDisk {
    state: Arc<Mutex<State>>,
    sabotage: Sabotage,
}

#[derive(Debug)]
struct State {
    model: Model,
    /// The disk after each change, for whoever wants to lose power there; none where nobody does.
    history: Option<Vec<Model>>,
    /// Directories that this process has changed and not synced.
    changed: Vec<Node>,
    full: bool,
}

impl ModelDisk {
    pub(crate) fn new(model: Model, sabotage: Sabotage) -> Self {
        let history = Some(vec![model.clone()]);
        let state = State { history, model, changed: Vec::new(), full: false };
        Self { state: Arc::new(Mutex::new(state)), sabotage }
    }

    /// An empty disk whose changes nobody looks at.
    pub(crate) fn without_history() -> Self {
        let disk = Self::new(Model::new(), Sabotage::None);
        disk.lock().history = None;
        disk
    }

    /// The disk after each change so far.
    pub(crate) fn history(&self) -> Vec<Model> {
        self.lock().history.clone().unwrap_or_default()
    }

    /// How many states there have been.
    pub(crate) fn moments(&self) -> usize {
        self.lock().history.as_ref().map_or(0, Vec::len)
    }

    /// Leaves no room, or enough.
    pub(crate) fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes the disk, and remembers how it looks after.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.lock();
        let changed = change(&mut state)?;
        let State { model, history, .. } = &mut *state;
        if let Some(history) = history {
            history.push(model.clone());
        }
        Ok(changed)
    }

    fn is_synced(&self, state: &mut State, node: Node) -> io::Result<bool> {
        let makes_directories = |state: &State| {
            let pending = &state.model.directory(node)?.pending;
            let made = |node: &Option<Node>| node.is_some_and(|node| state.model.directory(node).is_ok());
            Ok::<bool, io::Error>(pending.iter().any(|(_, node)| made(node)))
        };
        Ok(match self.sabotage {
            Sabotage::None | Sabotage::Files => true,
            Sabotage::Directories => false,
            Sabotage::NewDirectories => !makes_directories(state)?,
            Sabotage::OthersNames => {
                let changed = state.changed.contains(&node);
                state.changed.retain(|other| *other != node);
                changed
            }
        })
    }
}

impl State {
    fn touch(&mut self, path: &Path) {
        self.changed.extend(self.model.place(path).map(|(directory, _)| directory));
    }

    fn has_room(&self) -> io::Result<()> {
        if self.full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

struct ModelFile {
    disk: ModelDisk,
    node: Node,
}

impl DiskFile for ModelFile {
    fn write(&mut self, more: &[u8]) -> io::Result<()> {
        self.disk.change(|state| {
            state.has_room()?;
            let Content::File { bytes, .. } = &mut state.model.nodes[self.node] else {
                unreachable!("a file")
            };
            bytes.extend_from_slice(more);
            Ok(())
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        let ignored = self.disk.sabotage == Sabotage::Files;
        self.disk.change(|state| {
            let Content::File { bytes, durable } = &mut state.model.nodes[self.node] else {
                unreachable!("a file")
            };
            if !ignored {
                durable.clone_from(bytes);
            }
            Ok(())
        })
    }
}

impl Disk for ModelDisk {
    fn identity(&self, path: &Path) -> io::Result<Identity> {
        let state = self.lock();
        let node = state.model.find(path)?;
        state.model.directory(node).map(|_| Identity(1, node as u64))
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        self.change(|state| {
            state.has_room()?;
            state.touch(path);
            state.model.name(path, None, Some(Content::Directory(Directory::default()))).map(drop)
        })
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.change(|state| {
            let node = state.model.find(path)?;
            if self.is_synced(state, node)? {
                state.model.directory_mut(node)?.sync();
            }
            Ok(())
        })
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let node = self.change(|state| {
            state.has_room()?;
            state.touch(path);
            let empty = Content::File { bytes: Vec::new(), durable: Vec::new() };
            state.model.name(path, None, Some(empty))
        })?;
        Ok(Box::new(ModelFile { disk: self.clone(), node }))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| {
            let node = state.model.find(from)?;
            state.touch(to);
            state.model.name(to, Some(node), None).map(drop)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| {
            let node = state.model.find(from)?;
            state.touch(from);
            state.touch(to);
            let ((old, old_name), (new, new_name)) = (state.model.place(from)?, state.model.place(to)?);
            state.model.directory_mut(new)?.change(new_name, Some(node));
            state.model.directory_mut(old)?.change(old_name, None);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|state| {
            state.model.find(path)?;
            state.touch(path);
            let (directory, name) = state.model.place(path)?;
            state.model.directory_mut(directory)?.change(name, None);
            Ok(())
        })
    }

    fn read(&self, path: &Path, limit: usize) -> io::Result<disk::Content> {
        let state = self.lock();
        let node = state.model.find(path)?;
        match &state.model.nodes[node] {
            Content::File { bytes, .. } => {
                let bytes = bytes[..bytes.len().min(limit)].to_vec();
                Ok(disk::Content { bytes, node: disk::Node(node as u64) })
            }
            Content::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn read_directory(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let state = self.lock();
        let directory = state.model.directory(state.model.find(path)?)?;
        let what = |node: Node| match &state.model.nodes[node] {
            Content::File { bytes, .. } => {
                EntryKind::File { length: bytes.len() as u64, node: disk::Node(node as u64) }
            }
            Content::Directory(_) => EntryKind::Directory,
        };
        Ok(directory
            .names
            .iter()
            .map(|(name, node)| Entry { name: name.clone(), what: what(*node) })
            .collect())
    }
}
