"""Which config is best, and on what evidence: statuses, order, verdict, gates, ledger."""
