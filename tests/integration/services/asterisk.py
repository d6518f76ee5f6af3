"""Asterisk 22 from Debian sid, run from a folder of its own by ``chroot`` (as root).

Every instance has its own configuration, run, spool, log and data folders and its own
ports, so that several run side by side from one unpacked tree.
"""

from __future__ import annotations

import base64
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from tests.integration.services.certificates import Certificates
from tests.integration.services.ports import HOST, free_port, free_ports
from tests.integration.services.processes import Server, program, services_folder

_INSTANCES = "srv/ari-proxy-tests"
RTP_PORTS = 80
"""In a row; each call takes two. Long rows are soon used up."""

_FOLDERS = ("run", "spool/recording", "spool/tmp", "log", "data", "cache", "keys")
_UNUSED = "acl ccss cdr cel features manager pjproject stasis udptl"

# Only what calls, ARI and tones need: all modules take 6 s to load, most of it in
# vain, and warn of configuration that is not there.
_MODULES = """
app_stasis bridge_builtin_features bridge_holding bridge_native_rtp bridge_simple
bridge_softmix chan_bridge_media chan_pjsip chan_rtp codec_alaw codec_gsm codec_resample
codec_ulaw format_gsm format_pcm format_sln format_wav func_callerid func_channel
func_pjsip_endpoint func_strings pbx_config res_ari res_ari_applications
res_ari_asterisk res_ari_bridges res_ari_channels res_ari_device_states
res_ari_endpoints res_ari_events res_ari_model res_ari_playbacks res_ari_recordings
res_ari_sounds res_crypto res_http_websocket res_pjproject res_pjsip res_pjsip_acl
res_pjsip_authenticator_digest res_pjsip_caller_id res_pjsip_dtmf_info
res_pjsip_endpoint_identifier_anonymous res_pjsip_header_funcs res_pjsip_pubsub
res_pjsip_sdp_rtp res_pjsip_session res_rtp_asterisk res_rtp_multicast res_sorcery_astdb
res_sorcery_config res_sorcery_memory res_stasis res_stasis_answer
res_stasis_device_state res_stasis_playback res_stasis_recording res_stasis_snoop
res_timing_timerfd res_websocket_client
"""

_CONFIGURATION = {
    "asterisk.conf": """\
[directories]
astetcdir => {home}
astmoddir => {modules_folder}
astvarlibdir => {home}/data
astdbdir => {home}/data
astkeydir => {home}
astdatadir => /usr/share/asterisk
astagidir => /usr/share/asterisk/agi-bin
astspooldir => {home}/spool
astrundir => {home}/run
astlogdir => {home}/log
astcachedir => {home}/cache
astsbindir => /usr/sbin
""",
    "logger.conf": "[logfiles]\nconsole => notice,warning,error\n",
    "modules.conf": "[modules]\nautoload=no\n{modules}",
    "http.conf": """\
[general]
enabled=yes
bindaddr=127.0.0.1
bindport={http_port}
{tls}""",
    "ari.conf": """\
[general]
enabled=yes
channelvars=CALL_CONTEXT
[{user}]
type=user
password={password}
""",
    "pjsip.conf": """\
[transport]
type=transport
protocol=udp
bind=127.0.0.1:{sip_port}
[anonymous]
type=endpoint
context=calls
disallow=all
allow=ulaw
media_address=127.0.0.1
bind_rtp_to_media_address=yes
""",
    "rtp.conf": "[general]\nrtpstart={rtp_start}\nrtpend={rtp_end}\n",
    "extensions.conf": """\
[calls]
exten => 1000,1,Stasis({application})
 same => n,Hangup()
exten => _2.,1,Set(CALL_CONTEXT=${{EXTEN:1}})
 same => n,Stasis({application})
 same => n,Hangup()
exten => 3000,1,Answer()
 same => n,Wait(0.3)
 same => n,Hangup()
exten => 3001,1,Answer()
 same => n,Wait(60)
 same => n,Hangup()
""",
}


_TLS = """\
tlsenable=yes
tlsbindaddr=127.0.0.1:{port}
tlscertfile={home}/{file}
"""


def tree() -> Path:
    """Return the folder with the unpacked system, which need not be there."""
    return services_folder() / "asterisk"


def missing() -> str | None:
    """Tell what is not installed and how to mend it."""
    if not (tree() / "usr/sbin/asterisk").exists():
        return f"Asterisk is not in {tree()}: run `make services` as root"
    if os.geteuid():
        return "Asterisk runs in a chroot: run the tests as root"
    return None


class RealAsterisk(Server):
    """One Asterisk that sends calls into a Stasis application.

    What a caller may dial: ``1000`` enters Stasis without a call context, ``2`` and a
    text enters it with that text as ``CALL_CONTEXT``, ``3000`` is answered and hung
    up by Asterisk after 0.3 s, without Stasis; ``3001`` is answered and kept. A
    ``tone:`` goes on until it is ended.

    :ivar url: the base address of ARI, without a slash at its end.
    :ivar sip_port: where it takes SIP calls (UDP).
    :ivar tls_port: where it serves the same with TLS, if that was asked for.
    :ivar certificates: those of the server, if it has TLS.
    """

    name = "asterisk"

    def __init__(
        self,
        application: str = "demo",
        user: str = "ari",
        password: str = "s3cret",
        *,
        tls: bool = False,
    ) -> None:
        """Write the configuration of an instance that has not started yet.

        :param application: the name of the Stasis application of the dialplan.
        :param user: the ARI user, who may read and write.
        :param password: the password of that user.
        :param tls: also serve https and wss, with a certificate for 127.0.0.1 and
            localhost.
        """
        parent = tree() / _INSTANCES
        parent.mkdir(parents=True, exist_ok=True)
        super().__init__(free_port(), parent)
        self.application = application
        self.user = user
        self.password = password
        self.url = f"http://{HOST}:{self.port}/ari"
        self.sip_port = free_port()
        rtp_start = free_ports(RTP_PORTS)
        modules_folder = next(tree().glob("usr/lib/*/asterisk/modules"))
        values = {
            "home": self._home,
            "modules_folder": f"/{modules_folder.relative_to(tree())}",
            "modules": "".join(f"require={name}.so\n" for name in _MODULES.split()),
            "http_port": self.port,
            "tls": self._tls() if tls else "",
            "sip_port": self.sip_port,
            "rtp_start": rtp_start,
            "rtp_end": rtp_start + RTP_PORTS - 1,
            "application": application,
            "user": user,
            "password": password,
        }
        for folder in _FOLDERS:
            (self.folder / folder).mkdir(parents=True)
        for name, text in _CONFIGURATION.items():
            (self.folder / name).write_text(text.format(**values))
        for name in _UNUSED.split():
            (self.folder / f"{name}.conf").write_text("; defaults\n")
        # The names of tones: ``tone:ring``, ``tone:busy``.
        indications = tree() / "etc/asterisk/indications.conf"
        shutil.copy(indications, self.folder / indications.name)

    def command(self) -> list[str]:
        return [
            *(program("chroot") or "chroot", str(tree())),
            *("asterisk", "-fn", "-C", f"{self._home}/asterisk.conf"),
        ]

    def is_ready(self) -> bool:
        return self.request("GET", "/asterisk/ping")[0] == 200

    def request(self, method: str, path: str) -> tuple[int, bytes]:
        """Make one ARI request, for at most 5 s; for tests that have no reactor.

        :param path: what follows ``/ari``, with the query.
        :returns: status and body; status 0 when there is no answer.
        """
        credentials = base64.b64encode(f"{self.user}:{self.password}".encode())
        request = urllib.request.Request(
            self.url + path,
            method=method,
            headers={"Authorization": f"Basic {credentials.decode()}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read()
        except OSError:
            return 0, b""

    def _tls(self) -> str:
        """Make the certificates; gives what http.conf says of them."""
        self.certificates = Certificates(self.folder)
        self.tls_port = free_port()
        file = self.certificates.server.name
        return _TLS.format(port=self.tls_port, home=self._home, file=file)

    @property
    def _home(self) -> str:
        """The folder of the instance as the process in the chroot sees it."""
        return f"/{self.folder.relative_to(tree())}"
