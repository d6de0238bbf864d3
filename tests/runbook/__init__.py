"""The runbook docs/operate-frappe.md, played on a fleet of processes."""
