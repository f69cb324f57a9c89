//! Watch, place, bind: the shell around core/placement.
