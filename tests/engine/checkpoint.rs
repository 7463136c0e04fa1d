//! The checkpoint: the container of its objects, and its replicas.

mod container;
mod disks;
mod files;
mod memory;
mod model_disk;
mod mutants;
mod power_loss;
mod probe;
mod replicas;
