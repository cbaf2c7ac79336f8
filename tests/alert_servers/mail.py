"""A mail server with STARTTLS and AUTH: mail.py CERTIFICATE KEY DIRECTORY. Prints its port.

Mails go into DIRECTORY/mails, one JSON a line. DIRECTORY/mode holds what it answers instead of taking one: "451 later", or "hang".
"""
import asyncio, json, os, ssl, sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

certificate, key, directory = sys.argv[1:4]
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(certificate, key)


def mode():
    try:
        with open(os.path.join(directory, "mode")) as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


class Handler:
    async def handle_DATA(self, server, session, envelope):
        with open(os.path.join(directory, "tries"), "a") as file:
            file.write("tried\n")
        wanted = mode()
        if wanted == "hang":
            await asyncio.sleep(600)
        if wanted:
            return wanted
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "text": envelope.content.decode(),
            "tls": session.ssl is not None,
            "authenticated": session.authenticated,
        }
        with open(os.path.join(directory, "mails"), "a") as file:
            file.write(json.dumps(mail) + "\n")
        return "250 taken"


def authenticate(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"tidegate", b"mail-s3cret")
    return AuthResult(success=good, handled=False)


def connection():
    return SMTP(
        Handler(),
        hostname="localhost",
        tls_context=context,
        require_starttls=True,
        auth_required=True,
        authenticator=authenticate,
    )


async def main():
    server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
