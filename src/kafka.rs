//! How a Kafka cluster is reached: client settings and error mapping, shared by the Kafka source and sink.
//!
//! It deliberately neither reads nor writes records; it is the one place that decides how librdkafka is set up.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;

/// A cluster, as the user named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// `host:port`, several separated by commas.
    pub bootstrap_servers: String,
    /// Further librdkafka settings, by their own names.
    pub config: BTreeMap<String, String>,
}

impl Cluster {
    /// The settings that every client of the cluster shares.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.bootstrap_servers);
        for (name, value) in &self.config {
            client.set(name, value);
        }
        client
    }
}
