//! The driver: its pure parts by tables, its loop with small fakes on real threads.

mod fakes;
mod planning;
mod running;
mod schedule;
mod watermark;
