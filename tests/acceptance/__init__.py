"""The product as an operator runs it: fleets of frappe-bootstrap on the stand-in bench."""
