"""The tests. A test that proves a rule of the semantics names it; `docs/semantics.md` has the table."""
