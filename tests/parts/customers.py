"""Writes a SQLite database of customers, with values that look exactly like the real thing:
`customers.py FILE`. Every number is one that its owner published for tests."""

import sqlite3
import sys

CUSTOMERS = [
    (1, "Ada Moreno", "ada.moreno@example.com", "219-09-9999", "4111 1111 1111 1111", "gold"),
    (2, "Björn Åkesson", "bjorn@example.org", "078-05-1120", "5555555555554444", "basic"),
    (3, "Chidi Okafor", "chidi.okafor@example.net", "721-07-4426", "378282246310005", "gold"),
]

if __name__ == "__main__":
    with sqlite3.connect(sys.argv[1]) as db:
        db.execute(
            "create table customers (id integer primary key, name text, email text, ssn text,"
            " card text, plan text)"
        )
        db.executemany("insert into customers values (?, ?, ?, ?, ?, ?)", CUSTOMERS)
