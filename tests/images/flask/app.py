import os
from flask import Flask, request
from redis import Redis

app = Flask(__name__)
store = Redis(host=os.environ["REDIS_HOST"], port=6379)

@app.route("/")
def hits():
    return "visit %d, of %s\n" % (store.incr("hits"), request.headers.get("X-Real-IP", request.remote_addr))

app.run(host="0.0.0.0", port=5000)
