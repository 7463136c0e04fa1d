//! The Kafka source: exact ranges of topics, read through librdkafka in batches.
//!
//! It deliberately joins no group and keeps no positions: where to read is said with every fetch, and what was
//! processed is committed only so that lag tools can see it. One client answers questions; each fetcher has one of
//! its own, since a question would wait behind a fetch on the same connection, and since a client moves all bytes
//! of a broker on one thread.

mod client;
mod fetcher;
mod held;
mod lane;
mod native;
mod pattern;
mod share;
mod signal;
mod silence;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::thread::Builder;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Positions;
use crate::ingest::{Bound, Fetcher, Head, Loss, OnLoss, Source, data_loss, named_offsets, shrunk};
use crate::kafka::refusal::{self, Complaint};
use crate::kafka::settings::Role;
use crate::kafka::token::Tokens;
use crate::kafka::{Cluster, Reserved, explain, explain_code, no_such_topic};
use crate::offset::{Offset, TopicPartition};
use crate::raw::RawColumns;
use crate::time::{Clock, Waker};

use client::Client;
use fetcher::KafkaFetcher;
use held::Held;
use lane::Lanes;
use native::{Answer, Ask, Describing};
pub use pattern::TopicPattern;
use share::{Cut, Share};
use signal::{Signal, Wakers};

/// How long a question to the cluster may take, start included: as long as a user waits before doubting the name
/// of the broker, and longer than a broker's restart takes to be noticed.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a commit may take once it has been cancelled: a group's coordinator that is there answers in less, and one
/// that is not must not hold the end.
const CANCELLED_PATIENCE: Duration = Duration::from_millis(250);

/// How long the start waits to hear whether the cluster tells the ids of topics: a cluster that has none may not
/// answer at all. Later answers are taken when they come.
const IDS_PATIENCE: Duration = Duration::from_secs(1);

/// How long a fetch that gets nothing waits to hear whether its topic is still there: no cancel ends this wait.
const GONE_PATIENCE: Duration = Duration::from_secs(1);

/// How old an answer about the ends of partitions may be: between two of these, only what has arrived at the
/// fetchers moves an end.
const HEADS_AGE: Duration = Duration::from_millis(100);

/// How old the list of partitions may be: new ones are rare, and nothing of them is lost by seeing them late.
const PARTITIONS_AGE: Duration = Duration::from_secs(1);

/// How old the list of all topics may be that a pattern is matched with: the answer has every partition of the cluster,
/// many thousands in a large one, and a topic that is seen late is read from its beginning all the same.
const TOPICS_AGE: Duration = Duration::from_secs(3);

/// What a Kafka source reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topics {
    /// All partitions of these topics, new ones included.
    Names(Vec<String>),
    /// These partitions only.
    Partitions(Vec<TopicPartition>),
    /// All partitions of the topics that match, those included that are made while they are read.
    Pattern(TopicPattern),
}

impl Topics {
    /// Whether anything of `topic` is read.
    pub fn include(&self, topic: &str) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|name| name == topic),
            Self::Partitions(partitions) => partitions.iter().any(|at| at.topic.as_str() == topic),
            Self::Pattern(pattern) => pattern.matches(topic),
        }
    }

    /// The topics by name; none where only the cluster knows them.
    fn names(&self) -> Vec<String> {
        let names: BTreeSet<&str> = match self {
            Self::Names(names) => names.iter().map(String::as_str).collect(),
            Self::Partitions(partitions) => partitions.iter().map(|at| at.topic.as_str()).collect(),
            Self::Pattern(_) => BTreeSet::new(),
        };
        names.into_iter().map(str::to_owned).collect()
    }

    fn contain(&self, at: &TopicPartition) -> bool {
        match self {
            Self::Names(_) | Self::Pattern(_) => true,
            Self::Partitions(partitions) => partitions.contains(at),
        }
    }
}

/// Which records of transactions are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Those of committed transactions, once they are committed.
    #[default]
    Committed,
    /// All, also those of transactions that are open or were aborted.
    Uncommitted,
}

/// What a Kafka source is told at its start.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// The name it has in errors and progress.
    pub name: String,
    /// Where the topics are.
    pub cluster: Cluster,
    /// What is read.
    pub topics: Topics,
    /// The consumer group that offsets are committed to; none commits nothing.
    pub group_id: Option<String>,
    /// Which records of transactions are read.
    pub isolation: Isolation,
    /// What becomes of records that are gone before they were read.
    pub on_loss: OnLoss,
}

/// What the source alone decides: where it stands, and when that is told to the group.
const RESERVED: [Reserved; 8] = [
    Reserved { name: "group.id", is: &[], instead: "pass group_id" },
    Reserved { name: "auto.offset.reset", is: &["error"], instead: "pass starting" },
    Reserved {
        name: "enable.auto.commit",
        is: &["false"],
        instead: "leave it out: offsets are committed to group_id once their batch is delivered",
    },
    Reserved {
        name: "enable.auto.offset.store",
        is: &["false"],
        instead: "leave it out: offsets are committed to group_id once their batch is delivered",
    },
    Reserved {
        name: "isolation.level",
        is: &["read_committed"],
        instead: "leave it out: a batch ends at the last stable offset, and records of aborted transactions are not read",
    },
    Reserved {
        name: "enable.partition.eof",
        is: &["true"],
        instead: "leave it out: the end of a range is known by it",
    },
    Reserved {
        name: "check.crcs",
        is: &["true"],
        instead: "leave it out: a damaged batch of records must be seen",
    },
    Reserved {
        name: "allow.auto.create.topics",
        is: &["false"],
        instead: "create the topic first: a mistyped name would become a topic",
    },
];

impl KafkaSettings {
    /// An error for each setting of the user's that is not his to choose, with what to do instead. Nothing is connected for
    /// it.
    ///
    /// ```
    /// use tidemill::ingest::kafka::KafkaSettings;
    /// let mut settings = KafkaSettings::new("localhost:9092", "readings");
    /// settings.cluster.config.insert("group.id".into(), "alerts".into());
    /// let mistakes = settings.check();
    /// assert_eq!(mistakes[0].to_string(), "group.id is not set in config, found \"alerts\"; pass group_id");
    /// ```
    pub fn check(&self) -> Vec<Error> {
        self.cluster.refuse(&RESERVED)
    }

    /// All partitions of `topic` at `bootstrap_servers`; committed records, and no group.
    pub fn new(bootstrap_servers: &str, topic: &str) -> Self {
        Self {
            name: topic.to_owned(),
            cluster: Cluster::at(bootstrap_servers),
            topics: Topics::Names(vec![topic.to_owned()]),
            group_id: None,
            isolation: Isolation::Committed,
            on_loss: OnLoss::Fail,
        }
    }

    /// The client settings of the source; those that only make it faster give way to the user's.
    fn client(&self) -> ClientConfig {
        let mut config = self.cluster.client(Role::Consumer);
        for (name, value) in [
            ("fetch.queue.backoff.ms", "5"), // at its default a partition whose queue is full sleeps for a second
            ("fetch.wait.max.ms", "100"), // an end that no record tells of is seen when a fetch comes back empty
            ("reconnect.backoff.max.ms", "1000"), // a broker that comes back is found soon
        ] {
            if !self.cluster.config.contains_key(name) {
                config.set(name, value);
            }
        }
        Reserved::set(&RESERVED, &mut config);
        config.set("isolation.level", self.isolation.setting());
        config
    }

    /// The same for the client that asks and commits; it alone has to do with the group.
    fn asking_client(&self) -> ClientConfig {
        let mut config = self.client();
        if let Some(group) = &self.group_id {
            config.set("group.id", group);
        }
        config
    }

    /// The same for a fetcher, which may hold no more than its share; with what that takes from the user's settings.
    fn fetcher_client(&self, share: Share) -> (ClientConfig, Vec<Cut>) {
        let mut config = self.client();
        let cut = share.limit(&mut config, &self.cluster.config);
        (config, cut)
    }
}

impl Isolation {
    fn setting(self) -> &'static str {
        match self {
            Self::Committed => "read_committed",
            Self::Uncommitted => "read_uncommitted",
        }
    }
}

/// Topics of a Kafka cluster as a [`Source`].
pub struct KafkaSource {
    shared: Arc<Shared>,
}

/// What the source shares with its fetchers.
struct Shared {
    settings: KafkaSettings,
    tokens: Option<Tokens>,
    client: Arc<Client>,
    clock: Arc<dyn Clock>,
    wakers: Arc<Wakers>,
    known: Mutex<Known>, // asked by the planner's thread, and by an ingest thread that explains a loss
    count: AtomicUsize, // of the partitions read, for ingest threads, which must not wait for whoever asks the cluster
    names: Mutex<Vec<String>>, // the topics read, which a pattern adds to; apart from the rest: an error asks for them
    losses: Mutex<Vec<Loss>>,  // found by the ingest threads, taken by whoever counts
    lanes: Mutex<Vec<Weak<Mutex<Lanes>>>>, // those of the living fetchers: looked at by the planner's thread
    unanswered: AtomicBool,    // a commit was given up: librdkafka still waits for its answer
    settings_cut: Once,        // told for the first fetcher only: the others have the same
}

/// How long a log has to stay shorter than it was before it is believed: a leader that has just been chosen may know less
/// for a moment of what its followers have.
const SHRUNK_FOR: Duration = Duration::from_secs(2);

/// What is known of the topics, and since when.
#[derive(Default)]
struct Known {
    ids: Ids,
    topics: BTreeMap<String, Described>,
    topics_at: Duration,
    /// When all topics of the cluster were asked for, where a pattern is matched with them.
    listed_at: Duration,
    heads: BTreeMap<TopicPartition, Head>,
    heads_at: Option<Duration>,
    /// Since when logs have ended before where they had ended already.
    shorter: BTreeMap<TopicPartition, Duration>,
    /// Logs that are not what they were: what was read ahead of them may be of what is gone.
    remade: BTreeSet<TopicPartition>,
    /// Which of them open transactions may hold back.
    held: Held,
    /// Since when the cluster does not answer, where it does not.
    lost_at: Option<Duration>,
}

/// Whether the cluster tells the ids of topics, by which one that was deleted and made again is known.
#[derive(Default)]
enum Ids {
    /// Not known, and to be asked.
    #[default]
    Unknown,
    /// Asked, and not answered yet.
    Asked(Describing),
    /// It does.
    Told,
    /// It cannot.
    Never,
}

impl Ids {
    /// What an answer means. Only an answer that it cannot be done settles it: a broker that was slow or just
    /// restarting is asked again.
    fn after<T>(answer: Result<T, KafkaError>) -> Self {
        use RDKafkaErrorCode::{UnsupportedFeature, UnsupportedVersion};
        match answer.map_err(|error| error.rdkafka_error_code()) {
            Ok(_) => Self::Told,
            Err(Some(UnsupportedFeature | UnsupportedVersion)) => Self::Never,
            Err(_) => Self::Unknown,
        }
    }
}

/// One topic's partitions and its id.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Described {
    id: Option<[u8; 16]>,
    partitions: Vec<i32>,
}

impl KafkaSource {
    /// Connects to the cluster and finds the topics; an error within seconds where one or the other is not there.
    ///
    /// ```no_run
    /// use std::sync::Arc;
    /// use tidemill::ingest::Source;
    /// use tidemill::ingest::kafka::{KafkaSettings, KafkaSource};
    /// use tidemill::time::SystemClock;
    ///
    /// let settings = KafkaSettings::new("localhost:9092", "readings");
    /// let source = KafkaSource::connect(settings, Arc::new(SystemClock::new()))?;
    /// for head in source.heads()? {
    ///     println!("{}: {} to {}", head.at, head.earliest, head.stable);
    /// }
    /// # Ok::<(), tidemill::error::Error>(())
    /// ```
    pub fn connect(settings: KafkaSettings, clock: Arc<dyn Clock>) -> Result<Self> {
        Error::of_all(settings.check()).map_or(Ok(()), Err)?;
        let tokens = settings.cluster.tokens(PATIENCE, &Cancel::default());
        let tokens = tokens.map_err(|error| error.at(settings.name.clone()))?;
        let client = Client::new(&settings.asking_client(), tokens.as_ref());
        let what = format!("{}: no client can be made", settings.name);
        let client = client.map_err(|error| explain(&error, ErrorKind::Source, what, &settings.cluster))?;
        let shared = Shared {
            names: Mutex::new(settings.topics.names()),
            settings,
            tokens,
            client: Arc::new(client),
            clock,
            wakers: Arc::default(),
            known: Mutex::default(),
            count: AtomicUsize::new(0),
            losses: Mutex::default(),
            lanes: Mutex::default(),
            unanswered: AtomicBool::new(false),
            settings_cut: Once::new(),
        };
        shared.find_topics(&mut shared.known())?;
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KafkaSource({} at {})", self.shared.settings.name, self.shared.settings.cluster)
    }
}

impl Source for KafkaSource {
    fn name(&self) -> &str {
        &self.shared.settings.name
    }

    fn heads(&self) -> Result<Vec<Head>> {
        self.shared.client.serve();
        self.shared.token_failure().map_or(Ok(()), Err)?;
        let mut known = self.shared.known();
        if known.heads_at.is_none_or(|then| self.shared.age(then) >= HEADS_AGE) {
            let asked_at = self.shared.clock.elapsed();
            let answer = self.shared.refresh_heads(&mut known);
            self.shared.tell_of_return(&mut known, asked_at, answer.is_ok());
            answer?;
        }
        self.shared.look_ahead(&mut known);
        Ok(known.heads.values().cloned().collect())
    }

    fn resolve(&self, bound: &Bound) -> Result<Positions> {
        let partitions = {
            let mut known = self.shared.known();
            self.shared.refresh_topics(&mut known)?;
            self.shared.partitions(&known)
        };
        self.shared.resolve(bound, &partitions)
    }

    fn fetcher(&self, columns: RawColumns, budget: usize) -> Result<Box<dyn Fetcher>> {
        Ok(Box::new(self.shared.fetcher(columns, budget)?))
    }

    /// Waits for the answer: once it has returned, no commit is under way that a sudden stop could lose.
    fn acknowledge(&self, positions: &Positions, cancel: &Cancel) -> Result<()> {
        let Some(group) = &self.shared.settings.group_id else { return Ok(()) };
        let committed = native::commit(&self.shared.client, positions, PATIENCE, cancel, CANCELLED_PATIENCE);
        committed.map_err(|error| {
            self.shared.unanswered.store(true, Ordering::Relaxed);
            self.shared
                .explain(&error, &format!("offsets cannot be committed to group {group:?}"))
                .retriable()
        })
    }

    fn on_loss(&self) -> OnLoss {
        self.shared.settings.on_loss
    }

    fn take_losses(&self) -> Vec<Loss> {
        std::mem::take(&mut *self.shared.losses.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records arrive at the fetchers, so nothing wakes before a fetch has named a partition: an empty range does.
    fn subscribe(&self, waker: Waker) {
        self.shared.wakers.add(waker);
    }
}

/// A client that is closed waits for the answers to its commits, a minute where the broker hangs: whoever gave such a
/// commit up does not wait for it here either.
impl Drop for Shared {
    fn drop(&mut self) {
        if self.unanswered.load(Ordering::Relaxed) {
            let client = Arc::clone(&self.client);
            // Where the system gives no thread, the client is closed here after all.
            let _ = Builder::new().name("tidemill-close".to_owned()).spawn(move || drop(client));
        }
    }
}

impl Shared {
    fn fetcher(self: &Arc<Self>, columns: RawColumns, budget: usize) -> Result<KafkaFetcher> {
        let share = Share::of(budget, self.count.load(Ordering::Relaxed));
        let signal = Arc::new(Signal::new(Arc::clone(&self.wakers)));
        let client = self.fetching_client(share, &signal)?;
        let lanes = Lanes::new(Arc::clone(&client), Arc::clone(&signal), columns, share);
        let lanes = Arc::new(Mutex::new(lanes));
        let mut all = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|lanes| lanes.strong_count() > 0);
        all.push(Arc::downgrade(&lanes));
        self.clock.subscribe(signal.waker());
        Ok(KafkaFetcher { lanes, signal, client, shared: Arc::clone(self) })
    }

    /// A client that holds no more than `share` of each partition.
    fn fetching_client(&self, share: Share, signal: &Arc<Signal>) -> Result<Arc<Client>> {
        let (config, cut) = self.settings.fetcher_client(share);
        self.settings_cut.call_once(|| self.tell_of(&cut, share.partitions()));
        let client = Client::with_signal(&config, self.tokens.as_ref(), signal);
        client.map(Arc::new).map_err(|error| self.explain(&error, "no client can be made"))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn skips(&self) -> bool {
        self.settings.on_loss == OnLoss::Skip
    }

    /// The topics that are read.
    fn names(&self) -> Vec<String> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn age(&self, then: Duration) -> Duration {
        self.clock.elapsed().saturating_sub(then)
    }

    /// Why no token can be had, where that is so: without one, nothing will be read any more.
    fn token_failure(&self) -> Option<Error> {
        let failure = self.tokens.as_ref().and_then(Tokens::failure)?;
        Some(failure.at(self.settings.name.clone()))
    }

    /// `error` in this crate's words, with what librdkafka last said about the cluster.
    fn explain(&self, error: &KafkaError, what: &str) -> Error {
        self.explain_as(error, what, self.client.take_complaint())
    }

    fn explain_as(&self, error: &KafkaError, what: &str, complaint: Option<Complaint>) -> Error {
        if let Some(failure) = self.token_failure() {
            return failure;
        }
        let what = format!("{}: {what}", self.settings.name);
        if is_missing(error) {
            if self.skips() {
                // What is gone is seen by who lists the topics, and let go by who plans.
                return explain(error, ErrorKind::Source, what, &self.settings.cluster).retriable();
            }
            if let Some(gone) = self.gone(PATIENCE) {
                return gone;
            }
        }
        let Some(complaint) = complaint else {
            return explain(error, ErrorKind::Source, what, &self.settings.cluster);
        };
        let refused = refusal::explain(&complaint, ErrorKind::Source, &what, &self.settings.cluster);
        let error =
            explain(error, ErrorKind::Source, format!("{what} ({complaint})"), &self.settings.cluster);
        match refused {
            // Whoever is running already waits: a password or a certificate may be put right.
            Some(refused) if error.is_retriable() => refused.retriable(),
            Some(refused) => refused,
            None => error,
        }
    }

    /// The error for a topic that is gone, where one is: at the start all were there.
    fn gone(&self, patience: Duration) -> Option<Error> {
        let there = self.client.topics(None, patience).ok()?;
        let is_there = |name: &&str| there.iter().any(|(known, _)| known == name);
        let names = self.names();
        let gone = names.iter().map(String::as_str).find(|name| !is_there(name))?;
        if self.client.is_forbidden(gone, patience) {
            return None; // a right was taken away: librdkafka says so by itself
        }
        let (name, cluster) = (&self.settings.name, &self.settings.cluster);
        let text =
            format!("{name}: topic {gone:?} is gone: it was deleted while it was read (Kafka at {cluster})");
        Some(Error::source(text).help(
            "stop the job before its topic is deleted; if the topic has been made again, start the job again, from \"earliest\" \
             where its new records count from the first",
        ))
    }

    /// The error for a topic of fewer partitions than it had, where one is: Kafka takes none away, but with the topic.
    fn fewer(&self, had: &[TopicPartition]) -> Option<Error> {
        let there = self.client.topics(None, PATIENCE).ok()?;
        let (at, left) = had.iter().find_map(|at| {
            let (_, left) = there.iter().find(|(name, _)| *name == at.topic.as_str())?;
            (!left.contains(&at.partition.0)).then_some((at, left.len()))
        })?;
        let count = had.iter().filter(|other| other.topic == at.topic).count();
        let (name, cluster) = (&self.settings.name, &self.settings.cluster);
        let text = format!(
            "{name}: topic {:?} has {left} partitions, of which {count} are read: it was deleted and made again with fewer \
             (Kafka at {cluster})",
            at.topic.as_str()
        );
        Some(Error::source(text).help(
            "start the job again, from \"earliest\" where its new records count from the first; on_data_loss=\"skip\" goes \
             on by itself",
        ))
    }

    /// Notes since when the cluster does not answer, which the driver warns of, and says when it does again.
    fn tell_of_return(&self, known: &mut Known, asked_at: Duration, has_answered: bool) {
        if !has_answered {
            known.lost_at.get_or_insert(asked_at);
        } else if let Some(lost_at) = known.lost_at.take() {
            let (name, seconds) = (&self.settings.name, self.age(lost_at).as_secs());
            let cluster = &self.settings.cluster;
            log::info!(
                target: "tidemill::ingest::kafka",
                "{name}: Kafka at {cluster} is back after {seconds} s, and reading goes on"
            );
        }
    }

    fn tell_of(&self, cut: &[Cut], partitions: usize) {
        let name = &self.settings.name;
        for Cut { name: setting, wanted, granted } in cut {
            log::warn!(
                target: "tidemill::ingest::kafka",
                "{name}: {setting}={wanted} counts as {granted}: max_memory leaves no more for each of {partitions} \
                 partitions; raise max_memory, or leave the setting out"
            );
        }
    }

    fn partitions(&self, known: &Known) -> Vec<TopicPartition> {
        let of = |(topic, described): (&String, &Described)| -> Vec<TopicPartition> {
            described.partitions.iter().map(|partition| TopicPartition::new(topic, *partition)).collect()
        };
        let mut all: Vec<TopicPartition> = known.topics.iter().flat_map(of).collect();
        all.retain(|at| self.settings.topics.contain(at));
        all.sort();
        all
    }

    /// Makes sure at the start that what is to be read exists, and finds out whether the cluster tells ids.
    fn find_topics(&self, known: &mut Known) -> Result<()> {
        let (topics, complaint) =
            self.client.first_topics(PATIENCE, &self.settings.cluster.bootstrap_servers);
        let topics =
            topics.map_err(|error| self.explain_as(&error, "the cluster cannot be reached", complaint))?;
        if let Topics::Pattern(pattern) = &self.settings.topics {
            self.take_matching(pattern, &topics);
            known.listed_at = self.clock.elapsed();
            if self.names().is_empty() {
                let there = topics.into_iter().map(|(name, _)| name).collect();
                return Err(pattern
                    .without_match(there, &self.settings.cluster)
                    .at(self.settings.name.clone()));
            }
        }
        self.expect_all(&topics)?;
        known.ids = self.ask_for_ids()?;
        self.hear_of_ids(known, IDS_PATIENCE)?;
        self.refresh_topics(known)?;
        self.all_exist(known)
    }

    /// An error where a topic that was named is not `there`.
    fn expect_all(&self, there: &client::Topics) -> Result<()> {
        let there: Vec<&str> = there.iter().map(|(name, _)| name.as_str()).collect();
        let names = self.names();
        if let Some(missing) = names.iter().map(String::as_str).find(|name| !there.contains(name)) {
            if self.client.is_forbidden(missing, PATIENCE) {
                let what = format!("topic {missing:?} cannot be seen");
                let code = RDKafkaErrorCode::TopicAuthorizationFailed;
                return Err(explain_code(code, ErrorKind::Source, what, &self.settings.cluster));
            }
            let remedy = "check the topic's name, or create it first";
            return Err(no_such_topic(ErrorKind::Source, missing, there, &self.settings.cluster, remedy));
        }
        Ok(())
    }

    /// Reads those of the topics that are `there` that `pattern` means; those that are new, from their beginning.
    fn take_matching(&self, pattern: &TopicPattern, there: &client::Topics) {
        let matching: BTreeSet<String> =
            there.iter().map(|(name, _)| name).filter(|name| pattern.matches(name)).cloned().collect();
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        *names = matching.into_iter().collect();
    }

    /// Asks for the topics that match by now, where some are read by a pattern.
    fn refresh_names(&self, known: &mut Known) -> Result<()> {
        let Topics::Pattern(pattern) = &self.settings.topics else { return Ok(()) };
        if self.age(known.listed_at) < TOPICS_AGE {
            return Ok(());
        }
        let there = self.client.topics(None, PATIENCE);
        let there = there.map_err(|error| self.explain(&error, "the topics cannot be asked for"))?;
        let before = self.names();
        self.take_matching(pattern, &there);
        known.listed_at = self.clock.elapsed();
        for new in self.names().iter().filter(|name| !before.contains(name)) {
            let name = &self.settings.name;
            log::info!(target: "tidemill::ingest::kafka", "{name}: topic {new:?} matches the pattern by now");
        }
        Ok(())
    }

    fn ask_for_ids(&self) -> Result<Ids> {
        let asked = Describing::ask(&self.client, &self.names(), PATIENCE);
        asked.map(Ids::Asked).map_err(|error| self.explain(&error, "the topics cannot be described"))
    }

    /// Takes the answer whether the cluster tells ids, if it comes within `wait`; asks where nothing is known.
    fn hear_of_ids(&self, known: &mut Known, wait: Duration) -> Result<()> {
        known.ids = match std::mem::take(&mut known.ids) {
            Ids::Unknown => self.ask_for_ids()?,
            Ids::Asked(question) => question.answer(wait).map_or(Ids::Asked(question), Ids::after),
            settled => settled,
        };
        Ok(())
    }

    /// Asks for the partitions of the topics, and for their ids where the cluster tells them.
    fn refresh_topics(&self, known: &mut Known) -> Result<()> {
        self.refresh_names(known)?;
        self.hear_of_ids(known, Duration::ZERO)?;
        let described =
            if matches!(known.ids, Ids::Told) { self.describe() } else { self.describe_without_ids() };
        known.topics = described.map_err(|error| self.explain(&error, "the topics cannot be described"))?;
        known.topics_at = self.clock.elapsed();
        self.count.store(self.partitions(known).len(), Ordering::Relaxed);
        if self.skips() { Ok(()) } else { self.all_exist(known) }
    }

    fn describe(&self) -> Result<BTreeMap<String, Described>, KafkaError> {
        let names = self.names();
        if names.is_empty() {
            return Ok(BTreeMap::new()); // of a pattern that matches nothing any more
        }
        let topics = native::describe(&self.client, &names, PATIENCE)?;
        let gone = KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition);
        if topics.len() < names.len() && !self.skips() {
            return Err(gone);
        }
        let none = [0; 16]; // what a broker says that is older than ids
        let described = |topic: native::Description| Described {
            id: Some(topic.id).filter(|id| *id != none),
            partitions: topic.partitions,
        };
        Ok(topics.into_iter().map(|topic| (topic.name.clone(), described(topic))).collect())
    }

    fn describe_without_ids(&self) -> Result<BTreeMap<String, Described>, KafkaError> {
        let mut described = BTreeMap::new();
        for name in &self.names() {
            let topics = self.client.topics(Some(name), PATIENCE)?;
            let gone = KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition);
            match topics.into_iter().find(|(known, _)| known == name) {
                Some((name, partitions)) => _ = described.insert(name, Described { id: None, partitions }),
                None if self.skips() => {}
                None => return Err(gone),
            }
        }
        Ok(described)
    }

    fn all_exist(&self, known: &Known) -> Result<()> {
        let Topics::Partitions(wanted) = &self.settings.topics else { return Ok(()) };
        let there = self.partitions(known);
        let Some(missing) = wanted.iter().find(|at| !there.contains(at)) else { return Ok(()) };
        let count = known.topics.get(missing.topic.as_str()).map_or(0, |topic| topic.partitions.len());
        let message = format!("{missing} does not exist: topic {} has {count} partitions", missing.topic);
        Err(Error::source(message).help("partitions are numbered from 0"))
    }

    /// Asks for the first and the last stable offset of every partition.
    fn refresh_heads(&self, known: &mut Known) -> Result<()> {
        if self.age(known.topics_at) >= PARTITIONS_AGE {
            self.refresh_topics(known)?;
        }
        let (earliest, stable) = match self.ask_both(known) {
            // What has gone since the list was made is in the next list no more.
            Err(error) if self.skips() && error.cause().is_some_and(is_missing) => {
                known.listed_at = Duration::ZERO;
                self.refresh_topics(known)?;
                self.ask_both(known)?
            }
            answers => answers?,
        };
        let mut heads: BTreeMap<TopicPartition, Head> =
            stable.into_iter().map(|answer| (answer.at.clone(), head(answer, known))).collect();
        for answer in earliest {
            if let Some(head) = heads.get_mut(&answer.at) {
                head.earliest = answer.offset;
            }
        }
        self.compare(known, &mut heads);
        known.heads = heads;
        known.heads_at = Some(self.clock.elapsed());
        if self.settings.isolation == Isolation::Committed {
            self.look_for_held(known);
        }
        Ok(())
    }

    /// The first and the last stable offset of every partition.
    fn ask_both(&self, known: &Known) -> Result<(Vec<Answer>, Vec<Answer>)> {
        let partitions = self.partitions(known);
        let earliest = self.ask(&partitions, Ask::Earliest)?;
        Ok((earliest, self.ask(&partitions, Ask::Latest)?))
    }

    /// Tells of partitions that a transaction holds back, which somebody has left open, and when they are free again.
    fn look_for_held(&self, known: &mut Known) {
        let now = self.clock.elapsed();
        let Known { heads, held, .. } = known;
        for (at, news) in held.observe(heads.values(), now) {
            self.tell_of_held(&at, &news);
        }
        // It is only asked so as to tell of it: who does not answer is seen elsewhere.
        let ends = native::ends(&self.client, &held.doubtful(now), PATIENCE).unwrap_or_default();
        for (at, end) in ends {
            if let Some(news) = held.judge(&at, end, now) {
                self.tell_of_held(&at, &news);
            }
        }
    }

    fn tell_of_held(&self, at: &TopicPartition, news: &held::News) {
        let (name, TopicPartition { topic, partition }) = (&self.settings.name, at);
        match news {
            held::News::Held { stable, end, lasted } => log::warn!(
                target: "tidemill::ingest::kafka",
                "{name}: topic {topic} partition {partition}: a transaction that a producer has left open holds all records \
                 from offset {stable} on back, for {} s by now, while the log goes on to {end}; they are read once it is \
                 committed or aborted, by its producer or by the broker after the producer's transaction.timeout.ms; \
                 kafka-transactions.sh find-hanging names one that nobody will end",
                lasted.as_secs()
            ),
            held::News::Free { lasted } => log::info!(
                target: "tidemill::ingest::kafka",
                "{name}: topic {topic} partition {partition}: the transaction has ended after {} s, and reading goes on",
                lasted.as_secs()
            ),
        }
    }

    /// Notes the logs that are not what they were. One that ends earlier than it did is taken for what it was until it has
    /// stayed so.
    fn compare(&self, known: &mut Known, heads: &mut BTreeMap<TopicPartition, Head>) {
        let now = self.clock.elapsed();
        let Known { heads: before, shorter, remade, .. } = known;
        for (at, head) in heads {
            let Some(before) = before.get(at) else { continue };
            if before.topic_id != head.topic_id {
                remade.insert(at.clone());
            } else if head.stable < before.stable {
                if now.saturating_sub(*shorter.entry(at.clone()).or_insert(now)) < SHRUNK_FOR {
                    head.stable = before.stable;
                    continue;
                }
                remade.insert(at.clone());
            }
            shorter.remove(at);
        }
    }

    fn ask(&self, partitions: &[TopicPartition], ask: Ask) -> Result<Vec<Answer>> {
        let answers = native::list_offsets(&self.client, partitions, ask, PATIENCE);
        answers.map_err(|error| {
            let explained = self.explain(&error, "the partitions' offsets cannot be asked for");
            let fewer = if is_missing(&error) && !self.skips() { self.fewer(partitions) } else { None };
            fewer.unwrap_or(explained)
        })
    }

    /// Moves the ends to what has arrived at the fetchers: what was delivered is stable, so that a batch can be
    /// planned to its end without a round trip. A fetcher at work is left alone.
    fn look_ahead(&self, known: &mut Known) {
        let all = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        for lanes in all.iter().filter_map(Weak::upgrade) {
            let Ok(mut lanes) = lanes.try_lock() else { continue };
            for (at, seen) in lanes.look_ahead() {
                if known.remade.contains(&at) {
                    continue;
                }
                if let Some(head) = known.heads.get_mut(&at) {
                    head.stable = head.stable.max(seen);
                }
            }
        }
    }

    fn resolve(&self, bound: &Bound, partitions: &[TopicPartition]) -> Result<Positions> {
        match bound {
            Bound::Earliest => self.offsets(partitions, Ask::Earliest),
            Bound::Latest => self.offsets(partitions, Ask::Latest),
            Bound::Timestamp(since) => self.offsets_since(partitions, *since),
            Bound::Offsets(wanted) => named_offsets(&self.settings.name, partitions, wanted),
            Bound::Committed { fallback } => self.committed(partitions, fallback),
        }
    }

    fn offsets(&self, partitions: &[TopicPartition], ask: Ask) -> Result<Positions> {
        let mut offsets: Positions =
            self.ask(partitions, ask)?.into_iter().map(|answer| (answer.at, answer.offset)).collect();
        offsets.sort();
        Ok(offsets)
    }

    /// A partition without a record so late starts at its end; so does one whose record is not stable yet.
    fn offsets_since(&self, partitions: &[TopicPartition], since: i64) -> Result<Positions> {
        let mut offsets = self.offsets(partitions, Ask::Since(since))?;
        let ends = self.offsets(partitions, Ask::Latest)?;
        for ((_, offset), (_, end)) in offsets.iter_mut().zip(ends) {
            *offset = if offset.0 < 0 { end } else { (*offset).min(end) };
        }
        Ok(offsets)
    }

    /// What the group has committed. A partition without a commit whose topic the group has read is new, and starts at its
    /// beginning; those of other topics start where `fallback` says.
    fn committed(&self, partitions: &[TopicPartition], fallback: &Bound) -> Result<Positions> {
        if self.settings.group_id.is_none() {
            let message =
                format!("{}: the committed offsets are asked for, but there is no group", self.settings.name);
            return Err(
                Error::config(message).help("give a group_id, or start from \"earliest\" or \"latest\"")
            );
        }
        let committed = self.client.committed(partitions, PATIENCE);
        let mut positions =
            committed.map_err(|error| self.explain(&error, "the committed offsets cannot be asked for"))?;
        let known = |at: &&TopicPartition| positions.iter().any(|(known, _)| known == *at);
        let without = partitions.iter().filter(|at| !known(at)).cloned();
        let (grown, others): (Vec<TopicPartition>, Vec<_>) =
            without.partition(|at| positions.iter().any(|(known, _)| known.topic == at.topic));
        for (bound, partitions) in [(&Bound::Earliest, grown), (fallback, others)] {
            if !partitions.is_empty() {
                positions.extend(self.resolve(bound, &partitions)?);
            }
        }
        positions.sort();
        Ok(positions)
    }

    /// Why reading cannot go on at `wanted`, which the cluster says is out of range.
    fn out_of_range(&self, at: &TopicPartition, wanted: Offset) -> Error {
        match self.extent(at) {
            Ok(Extent { first, .. }) if wanted < first => data_loss(at, wanted, first),
            Ok(Extent { end, .. }) => shrunk(at, wanted, end),
            Err(error) => self.explain(&error, "the partition's offsets cannot be asked for"),
        }
    }

    /// Which offsets there are of one partition, now.
    fn extent(&self, at: &TopicPartition) -> Result<Extent, KafkaError> {
        let partition = std::slice::from_ref(at);
        let ask = |ask| {
            let answers = native::list_offsets(&self.client, partition, ask, PATIENCE)?;
            let none = KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition);
            answers.first().map(|answer| answer.offset).ok_or(none)
        };
        Ok(Extent { first: ask(Ask::Earliest)?, end: ask(Ask::Latest)? })
    }

    fn lose(&self, loss: Loss) {
        if loss.offsets() > 0 {
            self.losses.lock().unwrap_or_else(PoisonError::into_inner).push(loss);
        }
    }
}

/// Which offsets there are of a partition.
#[derive(Clone, Copy)]
struct Extent {
    first: Offset,
    end: Offset,
}

fn head(answer: Answer, known: &Known) -> Head {
    let topic_id = known.topics.get(answer.at.topic.as_str()).and_then(|topic| topic.id);
    let Answer { at, offset, leader_epoch } = answer;
    Head { at, topic_id, earliest: Offset(0), stable: offset, leader_epoch }
}

/// Whether `error` says that a topic or a partition is not there.
fn is_missing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
    let code = error.rdkafka_error_code();
    matches!(code, Some(UnknownTopicOrPartition | UnknownTopic | UnknownPartition))
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    use super::*;
    use crate::offset::OffsetRange;
    use crate::raw::RawChunk;
    use crate::time::{BatchTime, ManualClock};

    #[test]
    fn a_source_that_grows_cuts_its_memory_up_anew_and_gives_each_record_once() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t-0", 1, 1).unwrap();
        let servers = cluster.bootstrap_servers();
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
        for number in 0..20 {
            producer.send(BaseRecord::<(), [u8]>::to("t-0").payload(&[number])).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        let topics = Topics::Pattern(TopicPattern::new("t-.*").unwrap());
        let clock = Arc::new(ManualClock::new(BatchTime(0)));
        let settings = KafkaSettings { topics, ..KafkaSettings::new(&servers, "t") };
        let source = KafkaSource::connect(settings, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        let mut fetcher = source.shared.fetcher(RawColumns::default(), 50 << 20).unwrap();
        let mut given = Vec::new();
        let mut fetch = |fetcher: &mut KafkaFetcher, from, until| {
            let range = OffsetRange::new(TopicPartition::new("t-0", 0), Offset(from), Offset(until));
            let mut take = |chunk: RawChunk| {
                given.extend(chunk.payloads.iter().flatten().flatten().copied());
                Ok(())
            };
            fetcher.fetch(&[range], &Cancel::default(), &mut take).unwrap();
            let share = fetcher.lanes.lock().unwrap().share();
            (share.partitions(), share.look_ahead() >> 20)
        };
        assert_eq!(fetch(&mut fetcher, 0, 7), (1, 10));
        cluster.create_topic("t-1", 4, 1).unwrap();
        clock.advance(TOPICS_AGE);
        assert_eq!(source.heads().unwrap().len(), 5);
        assert_eq!(fetch(&mut fetcher, 7, 12), (8, 1));
        assert_eq!(fetch(&mut fetcher, 12, 20), (8, 1));
        assert_eq!(given, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn only_a_cluster_that_says_that_it_has_no_ids_is_not_asked_again() {
        let after = |code| Ids::after::<()>(Err(KafkaError::MetadataFetch(code)));
        assert!(matches!(after(RDKafkaErrorCode::UnsupportedFeature), Ids::Never));
        assert!(matches!(after(RDKafkaErrorCode::UnsupportedVersion), Ids::Never));
        for passing in [RDKafkaErrorCode::OperationTimedOut, RDKafkaErrorCode::BrokerTransportFailure] {
            assert!(matches!(after(passing), Ids::Unknown));
        }
        assert!(matches!(Ids::after(Ok(())), Ids::Told));
    }
}
