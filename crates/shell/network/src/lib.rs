//! Pod network, service proxy and cluster DNS of one node.
