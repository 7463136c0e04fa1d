//! tidemill
pub mod error;
pub mod time;
pub mod offset;
pub mod raw;
pub mod event;
pub mod decode;
pub mod expr;
pub mod detect;
pub mod plan;
pub mod exec;
pub mod kafka;
