"""SQL, the truth: tables, the engine, and a repository for each thing kept. Nothing above sees SQLAlchemy."""
