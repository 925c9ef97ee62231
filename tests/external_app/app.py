"""A ticket shop as a course project might hand it in. It is measured by the tests; nothing of it is ours to mend.

Its faults are on purpose: the stock is read, decreased in Python and written back; the log-in hashes the password in
the request; every answer builds its objects anew; and the load test still calls a route that is long gone.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException
from prometheus_client import Gauge
from prometheus_fastapi_instrumentator import Instrumentator
from pydantic import BaseModel
from sqlalchemy import ForeignKey, String, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

DATABASE_URL = os.environ.get("DATABASE_URL", "sqlite:///shop.db")
API_KEY = os.environ.get("API_KEY", "")
CAPACITY = int(os.environ.get("CAPACITY", "50"))
PAYMENT_S = float(os.environ.get("PAYMENT_S", "0.03"))
PASSWORD_ROUNDS = int(os.environ.get("PASSWORD_ROUNDS", "400000"))

waits = {"check_same_thread": False, "timeout": 20} if DATABASE_URL.startswith("sqlite") else {}
engine = create_engine(DATABASE_URL, connect_args=waits, pool_size=5, max_overflow=10)
SessionLocal = sessionmaker(bind=engine)

tickets_sold = Gauge("tickets_sold", "Tickets handed out", ["match"])
tickets_capacity = Gauge("tickets_capacity", "Seats", ["match"])


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    salt: Mapped[str] = mapped_column(String(64))
    password: Mapped[str] = mapped_column(String(128))


class Match(Base):
    __tablename__ = "matches"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    remaining: Mapped[int]


class Ticket(Base):
    __tablename__ = "tickets"
    id: Mapped[int] = mapped_column(primary_key=True)
    match_id: Mapped[int] = mapped_column(ForeignKey("matches.id"))
    buyer: Mapped[str] = mapped_column(String(50))


def hash_password(password: str, salt: str) -> str:
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), PASSWORD_ROUNDS).hex()


def seed() -> None:
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with SessionLocal() as db:
        db.add_all(Match(id=n, name=f"match {n}", remaining=CAPACITY) for n in range(1, 6))
        db.add(User(name="alice", salt="salt", password=hash_password("secret", "salt")))
        db.commit()
    for n in range(1, 6):
        tickets_sold.labels(str(n)).set(0)
        tickets_capacity.labels(str(n)).set(CAPACITY)


@asynccontextmanager
async def lifespan(_: FastAPI):
    seed()
    yield


def get_db() -> Iterator[Session]:
    db = SessionLocal()
    try:
        yield db
    finally:
        db.close()


Db = Annotated[Session, Depends(get_db)]


def check_key(x_api_key: Annotated[str, Header()] = "") -> None:
    if API_KEY and x_api_key != API_KEY:
        raise HTTPException(401, "wrong or missing X-Api-Key")


app = FastAPI(title="course shop", lifespan=lifespan)
Instrumentator().instrument(app).expose(app)


class Login(BaseModel):
    name: str
    password: str


class Purchase(BaseModel):
    buyer: str


@app.post("/login")
def login(body: Login, db: Db) -> dict[str, str]:
    user = db.scalar(select(User).where(User.name == body.name))
    if user is None or hash_password(body.password, user.salt) != user.password:
        raise HTTPException(403, "no")
    return {"token": "t"}


@app.get("/matches")
def list_matches(db: Db) -> list[dict[str, Any]]:
    return [{"id": m.id, "name": m.name, "remaining": m.remaining} for m in db.scalars(select(Match)).all()]


@app.post("/matches/{match_id}/tickets", status_code=201, dependencies=[Depends(check_key)])
def buy(match_id: int, body: Purchase, db: Db) -> dict[str, int]:
    match = db.get(Match, match_id)
    if match is None:
        raise HTTPException(404, "no such match")
    remaining = match.remaining
    if remaining <= 0:
        raise HTTPException(409, "sold out")
    time.sleep(PAYMENT_S)
    match.remaining = remaining - 1
    ticket = Ticket(match_id=match_id, buyer=body.buyer)
    db.add(ticket)
    db.commit()
    tickets_sold.labels(str(match_id)).inc()
    return {"ticket_id": ticket.id}
