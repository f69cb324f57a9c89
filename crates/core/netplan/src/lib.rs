//! Services, slices and nodes in; rule set, routes and DNS zone out, with their differences.
