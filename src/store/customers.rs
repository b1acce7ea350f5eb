//! The database of the demo's sample MCP server: made-up customers with made-up numbers.

use std::path::Path;

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

use super::StoreError;

/// One made-up customer.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Customer {
    /// A number of our own.
    pub id: i64,
    /// A name.
    pub name: String,
    /// An address at a reserved domain.
    pub email: String,
    /// A card number that card schemes publish for tests.
    pub card: String,
    /// A social security number that belongs to nobody.
    pub ssn: String,
    /// What they pay for.
    pub plan: String,
}

/// The sample's database.
#[derive(Clone, Debug)]
pub struct SampleCustomers {
    pool: sqlx::SqlitePool,
}

const CUSTOMERS: &[(&str, &str, &str, &str, &str)] = &[
    ("Ada Winters", "ada.winters@example.com", "4111 1111 1111 1111", "219-44-7315", "team"),
    ("Noor Haddad", "noor@example.org", "5555 5555 5555 4444", "457-55-1462", "free"),
    ("Jonas Lindqvist", "j.lindqvist@example.net", "3782 822463 10005", "612-38-9047", "team"),
    ("Mei Tanaka", "mei.tanaka@example.com", "6011 1111 1111 1117", "534-71-2208", "business"),
    ("Olu Adeyemi", "olu@example.org", "4012 8888 8888 1881", "331-26-5590", "business"),
];

impl SampleCustomers {
    /// Opens the database, and fills it if it is new.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await
            .map_err(|source| StoreError::Open { path: path.display().to_string(), source })?;
        for statement in [
            "CREATE TABLE IF NOT EXISTS customers (
                 id INTEGER PRIMARY KEY, name TEXT, email TEXT, card TEXT, ssn TEXT, plan TEXT)",
            "CREATE TABLE IF NOT EXISTS deletions (customer INTEGER)",
        ] {
            sqlx::query(statement).execute(&pool).await?;
        }
        let filled = sqlx::query("SELECT 1 FROM customers LIMIT 1").fetch_optional(&pool).await?;
        if filled.is_none() {
            for (name, email, card, ssn, plan) in CUSTOMERS {
                sqlx::query(
                    "INSERT INTO customers (name, email, card, ssn, plan)
                     VALUES ($1, $2, $3, $4, $5)",
                )
                .bind(name)
                .bind(email)
                .bind(card)
                .bind(ssn)
                .bind(plan)
                .execute(&pool)
                .await?;
            }
        }
        Ok(Self { pool })
    }

    /// The customers whose name contains a text.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn search(&self, name: &str) -> Result<Vec<Customer>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, name, email, card, ssn, plan FROM customers
             WHERE instr(lower(name), lower($1)) > 0 OR $1 = '' ORDER BY id",
        )
        .bind(name)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Customer {
                    id: row.try_get("id")?,
                    name: row.try_get("name")?,
                    email: row.try_get("email")?,
                    card: row.try_get("card")?,
                    ssn: row.try_get("ssn")?,
                    plan: row.try_get("plan")?,
                })
            })
            .collect()
    }

    /// Deletes one customer, and keeps count of having been asked to. Says whether there was one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete(&self, id: i64) -> Result<bool, StoreError> {
        sqlx::query("INSERT INTO deletions (customer) VALUES ($1)")
            .bind(id)
            .execute(&self.pool)
            .await?;
        let done =
            sqlx::query("DELETE FROM customers WHERE id = $1").bind(id).execute(&self.pool).await?;
        Ok(done.rows_affected() == 1)
    }

    /// How often a deletion was carried out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn deletions(&self) -> Result<i64, StoreError> {
        let row =
            sqlx::query("SELECT count(*) AS times FROM deletions").fetch_one(&self.pool).await?;
        Ok(row.try_get("times")?)
    }
}
