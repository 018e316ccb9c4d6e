//! Good files, which the seeds are and which targets change.

pub mod adapter;
pub mod checkpoint;
pub mod model_folder;
