//! The organisation's SAML identity provider: Debian's simplesamlphp on PHP's own web server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::browser::{Browser, Form, Page};
use super::site::Server;
use super::{Proc, Skip, World, debian, http, until};

/// What Debian calls it, and the parts of PHP that it runs on.
const PACKAGES: [&str; 6] =
    ["simplesamlphp", "php-cli", "php-xml", "php-mbstring", "php-curl", "php-sqlite3"];

const CHECK: &str = "test -f /usr/share/simplesamlphp/www/index.php && command -v php && \
                     php -m | grep -qx dom && php -m | grep -qx mbstring";

/// The identity provider; it runs as long as this is held.
pub struct SamlIdp<'a> {
    world: &'a World<'a>,
    /// Where it listens.
    pub url: String,
    dir: PathBuf,
    _proc: Proc,
}

impl<'a> SamlIdp<'a> {
    /// Starts it, with alice, bob and mallory in it, who all have the password `any`.
    ///
    /// # Errors
    /// [`Skip`] where it cannot be installed.
    pub fn start(world: &'a World) -> anyhow::Result<Self> {
        if !debian::provides(CHECK, &PACKAGES) {
            return Err(Skip("simplesamlphp and PHP are missing".to_owned()).into());
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let url = format!("http://127.0.0.1:{port}");
        let dir = world.dir().join("ssp");
        for folder in ["config", "metadata", "cert", "tmp", "log", "data", "root"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        std::os::unix::fs::symlink("/usr/share/simplesamlphp/www", dir.join("root/simplesaml"))?;
        for name in ["server", "stranger"] {
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256)?;
            let certificate = rcgen::CertificateParams::new(vec![])?.self_signed(&key)?;
            fs::write(dir.join(format!("cert/{name}.pem")), key.serialize_pem())?;
            fs::write(dir.join(format!("cert/{name}.crt")), certificate.pem())?;
        }
        let root = dir.display();
        fs::write(
            dir.join("config/config.php"),
            format!(
                "<?php $config = [
                'baseurlpath' => '{url}/simplesaml/', 'certdir' => '{root}/cert/',
                'loggingdir' => '{root}/log/', 'datadir' => '{root}/data/',
                'tempdir' => '{root}/tmp/', 'metadatadir' => '{root}/metadata/',
                'metadata.sources' => [['type' => 'flatfile', 'directory' => '{root}/metadata/']],
                'technicalcontact_name' => 'x', 'technicalcontact_email' => 'x@example.test',
                'timezone' => 'UTC', 'secretsalt' => 'salt of a story', 'auth.adminpassword' => 'x1',
                'admin.protectmetadata' => false, 'showerrors' => true, 'errorreporting' => false,
                'logging.level' => 7, 'logging.handler' => 'file', 'logging.logfile' => 'ssp.log',
                'enable.saml20-idp' => true, 'module.enable' => ['exampleauth' => true],
                'session.cookie.secure' => false, 'session.cookie.samesite' => null,
                'session.phpsession.cookiename' => 'SSP', 'store.type' => 'phpsession',
                'session.phpsession.savepath' => '{root}/tmp', 'session.duration' => 28800,
                'language.default' => 'en', 'theme.use' => 'default', 'authproc.idp' => [],
                ];"
            ),
        )?;
        let person = |name: &str, groups: &str| {
            format!(
                "'{name}:any' => ['uid' => ['{name}'], 'mail' => ['{name}@example.test'], \
                 'groups' => [{groups}]],"
            )
        };
        let people = [person("alice", "'eng', 'staff'"), person("bob", "'staff'")].concat();
        fs::write(
            dir.join("config/authsources.php"),
            format!("<?php $config = ['people' => ['exampleauth:UserPass', {people}]];"),
        )?;
        fs::write(
            dir.join("metadata/saml20-idp-hosted.php"),
            format!(
                "<?php $metadata['{url}/idp'] = ['host' => '__DEFAULT__', \
                 'privatekey' => 'server.pem', 'certificate' => 'server.crt', 'auth' => 'people', \
                 'NameIDFormat' => 'urn:oasis:names:tc:SAML:2.0:nameid-format:persistent', \
                 'saml20.sign.assertion' => true, 'saml20.sign.response' => false, \
                 'authproc' => [3 => ['class' => 'saml:PersistentNameID', 'attribute' => 'uid']]];"
            ),
        )?;
        let mut command = world.command("php")?;
        command
            .env("SIMPLESAMLPHP_CONFIG_DIR", dir.join("config"))
            .arg("-d")
            .arg(format!("session.save_path={root}/tmp"))
            .args(["-S", &format!("127.0.0.1:{port}"), "-t"])
            .arg(dir.join("root"));
        let proc = Proc::start(world, "simplesamlphp", command)?;
        let idp = Self { world, url, dir, _proc: proc };
        let metadata = until("simplesamlphp shows its metadata", || Ok(idp.metadata().ok()))?;
        world.write("server/idp.xml", &metadata)?;
        Ok(idp)
    }

    /// From now on it signs the response besides the assertion in it, as many do.
    ///
    /// # Errors
    /// Its configuration cannot be changed.
    pub fn signs_responses_too(&self) -> anyhow::Result<()> {
        let file = self.dir.join("metadata/saml20-idp-hosted.php");
        let (no, yes) = ("'saml20.sign.response' => false", "'saml20.sign.response' => true");
        let text = fs::read_to_string(&file)?;
        anyhow::ensure!(text.contains(no), "{text}");
        Ok(fs::write(file, text.replace(no, yes))?)
    }

    fn metadata(&self) -> anyhow::Result<String> {
        let url = format!("{}/simplesaml/saml2/idp/metadata.php", self.url);
        let answer = http::send(http::client().get(url))?;
        anyhow::ensure!(answer.status == 200, "{answer:#?}");
        Ok(answer.body)
    }

    /// Tells it of a server, as its administrator does with the server's metadata.
    ///
    /// # Errors
    /// The server shows no metadata, or it cannot be written.
    pub fn knows(&self, server: &Server) -> anyhow::Result<()> {
        let entity = format!("{}/issuer/saml/metadata", server.url);
        let shown = http::send(http::client().get(&entity))?;
        let acs = format!("{}/issuer/saml/acs", server.url);
        anyhow::ensure!(shown.status == 200 && shown.body.contains(&acs), "{shown:#?}");
        anyhow::ensure!(shown.body.contains(&format!("entityID=\"{entity}\"")), "{shown:#?}");
        fs::write(
            self.dir.join("metadata/saml20-sp-remote.php"),
            format!(
                "<?php $metadata['{entity}'] = ['AssertionConsumerService' => '{acs}', \
                 'simplesaml.nameidattribute' => 'uid'];"
            ),
        )?;
        Ok(())
    }

    /// Opens a command line's address and signs in, up to the form that posts the response.
    ///
    /// # Errors
    /// A page is not what it should be.
    pub fn sign_in(
        &self,
        browser: &mut Browser,
        address: &str,
        name: &str,
    ) -> anyhow::Result<Form> {
        let device = browser.open(address)?;
        let on = browser.submit(&device.form()?, &[("action", "saml")])?;
        let login = browser.open(&link(&on)?)?;
        let form = login.form()?;
        let posted = browser.submit(&form, &[("username", name), ("password", "any")])?;
        let form = posted.form()?;
        anyhow::ensure!(form.field("SAMLResponse").is_some(), "no response: {posted:#?}");
        Ok(form)
    }

    /// Signs in and confirms.
    ///
    /// # Errors
    /// A page is not what it should be.
    pub fn approve(&self, address: &str, name: &str) -> anyhow::Result<()> {
        let mut browser = Browser::default();
        let form = self.sign_in(&mut browser, address, name)?;
        let confirm = browser.submit(&form, &[])?;
        let done = browser.submit(&confirm.form()?, &[("action", "approve")])?;
        anyhow::ensure!(done.says("is now logged in as"), "not logged in: {done:#?}");
        Ok(())
    }

    /// A document with its assertion signed anew: by whose key, and with what.
    ///
    /// # Errors
    /// PHP does not run.
    pub fn resign(&self, xml: &str, whose: &str, algorithm: &str) -> anyhow::Result<String> {
        use std::io::Write as _;
        let file = |ending: &str| self.dir.join(format!("cert/{whose}.{ending}"));
        let mut command = self.world.command("php")?;
        command
            .env("SIMPLESAMLPHP_CONFIG_DIR", self.dir.join("config"))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parts/resign.php"))
            .args([file("pem"), file("crt")])
            .arg(algorithm)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let output = with_input(command, |mut stdin| stdin.write_all(xml.as_bytes()))?;
        let text = String::from_utf8(output)?;
        anyhow::ensure!(STANDARD.decode(text.trim()).is_ok(), "{text}");
        Ok(text.trim().to_owned())
    }
}

fn with_input(
    mut command: Command,
    write: impl FnOnce(std::process::ChildStdin) -> std::io::Result<()>,
) -> anyhow::Result<Vec<u8>> {
    let mut child = command.spawn()?;
    write(child.stdin.take().context("no stdin")?)?;
    let output = child.wait_with_output()?;
    anyhow::ensure!(output.status.success(), "{output:?}");
    Ok(output.stdout)
}

/// The first link of a page.
fn link(page: &Page) -> anyhow::Result<String> {
    let (_, rest) = page.html.split_once("<a href=\"").with_context(|| format!("{page:#?}"))?;
    let (link, _) = rest.split_once('"').with_context(|| format!("{page:#?}"))?;
    Ok(link.replace("&amp;", "&"))
}
