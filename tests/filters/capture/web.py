"""Apache and nginx and those who abuse them: names, URLs and referrers that hold the address of another."""

import re
import subprocess
import time
from pathlib import Path

from tests.filters.capture.client import CLIENTS, OTHER, b64, run, talk

APACHE = """
ServerRoot /usr/lib/apache2
ServerName www.example.com
PidFile {home}/apache.pid
Listen 0.0.0.0:8080
Listen [::]:8080
User www-data
Group www-data
ErrorLog {home}/apache-error.log
LogFormat "%h %l %u %t \\"%r\\" %>s %O \\"%{{Referer}}i\\" \\"%{{User-Agent}}i\\"" combined
LogFormat "%h %l %u %t \\"%r\\" %>s %O" common
LogFormat "%v:%p %h %l %u %t \\"%r\\" %>s %O \\"%{{Referer}}i\\" \\"%{{User-Agent}}i\\"" vhost_combined
CustomLog {home}/apache-access.log combined
CustomLog {home}/apache-common.log common
CustomLog {home}/apache-vhost.log vhost_combined
LoadModule mpm_event_module modules/mod_mpm_event.so
{modules}
DocumentRoot {home}/www
<Location /basic>
  AuthType Basic
  AuthName "basic"
  AuthUserFile {home}/htpasswd
  Require valid-user
</Location>
<Location /digest>
  AuthType Digest
  AuthName "digest"
  AuthUserFile {home}/htdigest
  Require valid-user
</Location>
<Location /only>
  AuthType Basic
  AuthName "only"
  AuthUserFile {home}/htpasswd
  Require user somebody
</Location>
Redirect 401 /login
Redirect 403 /wp-login.php
Redirect 403 /secret
"""


NGINX = """
pid {home}/nginx.pid;
error_log {home}/nginx-error.log;
events {{}}
http {{
  access_log {home}/nginx-access.log combined;
  client_body_temp_path {home}/n1; proxy_temp_path {home}/n2; fastcgi_temp_path {home}/n3;
  uwsgi_temp_path {home}/n4; scgi_temp_path {home}/n5;
  server {{
    listen 8081; listen [::]:8081 ipv6only=on;
    server_name www.example.com;
    root {home}/www;
    location /basic {{ auth_basic "basic"; auth_basic_user_file {home}/htpasswd; }}
    location /login {{ return 401; }}
    location /wp-login.php {{ return 403; }}
    location /secret {{ return 403; }}
  }}
}}
"""


def capture_web(folder: Path) -> None:
    """Both servers, with the same pages behind passwords."""
    home = folder / "web"
    (home / "www" / "basic").mkdir(parents=True)
    hashed = run("openssl", "passwd", "-apr1", "right").stdout.strip()
    (home / "htpasswd").write_text(f"alice:{hashed}\n")
    (home / "htdigest").write_text("alice:digest:" + "0" * 32 + "\n")
    modules = ("authn_core", "authn_file", "authz_core", "authz_user", "auth_basic", "auth_digest", "alias")
    loads = "\n".join(f"LoadModule {m}_module modules/mod_{m}.so" for m in modules)
    (home / "apache.conf").write_text(APACHE.format(home=home, modules=loads))
    (home / "nginx.conf").write_text(NGINX.format(home=home))
    run("chmod", "-R", "a+rX", str(folder))
    daemons = [
        subprocess.Popen(["apache2", "-DFOREGROUND", "-f", str(home / "apache.conf")]),
        subprocess.Popen(["nginx", "-c", str(home / "nginx.conf"), "-g", "daemon off;"]),
    ]
    time.sleep(2)
    for client in CLIENTS:
        for port in (8080, 8081):
            web_sessions(client, port)
    for daemon in daemons:
        daemon.terminate()


def web_sessions(client: str, port: int) -> None:
    """Everything that our filter should see, and some that it should not."""

    def ask(method: str, path: str, *headers: str) -> bytes:
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: www.example.com",
            "Connection: close",
            "Content-Length: 0",
            *headers,
        ]
        return talk(client, port, ["\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")], wait=0.05)

    def basic(user: str, password: str = "wrong") -> str:
        return "Authorization: Basic " + b64(f"{user}:{password}").decode()

    hostile = (
        f'x [client {OTHER}:1] AH01617: user y: authentication failure for "/"',
        f'y" 401 1 "-" "-"\n{OTHER} - z',
        f"{OTHER} - root [22/Nov/2020:13:00:00 +0000]",
        f': authentication failure for "/": Password Mismatch, client: {OTHER}, server: x',
        'back\\slash"quote',
    )
    for user in ("alice", "nobody", "", "two words", "é", *hostile):
        ask("GET", "/basic/", basic(user))
    ask("GET", "/basic/", basic("alice", "right"))
    ask("GET", "/basic/")
    ask("GET", "/only/", basic("alice", "right"))
    for user in ("alice", "nobody", f"x' in realm `y' not found: [client {OTHER}:1]"):
        for realm in ("digest", "other"):
            nonce = (re.findall(rb'nonce="([^"]*)"', ask("GET", "/digest/")) or [b""])[0].decode()
            ask(
                "GET",
                "/digest/",
                f'Authorization: Digest username="{user}", realm="{realm}", nonce="{nonce}",'
                f' uri="/digest/", response="{32 * "0"}", qop=auth, nc=00000001, cnonce="x", algorithm=MD5',
            )
    ask("POST", "/login", 'Referer: http://x/" 401 1')
    ask(
        "POST",
        f"/login?{OTHER}%20-%20x",
        f'User-Agent: x {OTHER} - - [22/Nov/2026:13:00:00 +0000] "POST /login HTTP/1.1" 401 1',
    )
    ask("GET", "/login")
    ask("POST", "/wp-login.php", f"Referer: [client {OTHER}:1]")
    ask("GET", "/secret")
    ask("GET", '/secret"POST', f'User-Agent: "POST /login HTTP/1.1" 401 {OTHER}')
    ask(f'POST /login HTTP/1.1" 401 1 "-" "-" {OTHER}', "/x")
