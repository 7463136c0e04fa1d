//! The driver: its pure parts by tables, its loop with small fakes on real threads.

mod fakes;
mod hand;
mod laggard;
mod memory;
mod planning;
mod rate;
mod running;
mod schedule;
mod watermark;
