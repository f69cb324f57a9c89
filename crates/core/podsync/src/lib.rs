//! Desired pod, observed containers and now in; runtime actions and status out.
