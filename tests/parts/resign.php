<?php
// Signs the assertion of a response anew, with the key of the story's identity provider and the
// library that simplesamlphp signs with. The document comes on stdin and goes, base64, to stdout.
// php resign.php KEY CERTIFICATE ALGORITHM
require '/usr/share/simplesamlphp/lib/_autoload.php';

use RobRichards\XMLSecLibs\XMLSecurityDSig;
use RobRichards\XMLSecLibs\XMLSecurityKey;

[, $key_file, $certificate, $algorithm] = $argv;
$document = new DOMDocument();
$document->preserveWhiteSpace = true;
$document->loadXML(stream_get_contents(STDIN));
$path = new DOMXPath($document);
foreach (iterator_to_array($path->query('//*[local-name()="Signature"]')) as $old) {
    $old->parentNode->removeChild($old);
}
if ($algorithm !== 'none') {
    $sha = $algorithm === 'sha1';
    $key = new XMLSecurityKey(
        $sha ? XMLSecurityKey::RSA_SHA1 : XMLSecurityKey::RSA_SHA256, ['type' => 'private']);
    $key->loadKey($key_file, true);
    foreach ($path->query('/*/*[local-name()="Assertion"]') as $assertion) {
        $signature = new XMLSecurityDSig();
        $signature->setCanonicalMethod(XMLSecurityDSig::EXC_C14N);
        $signature->addReferenceList(
            [$assertion], $sha ? XMLSecurityDSig::SHA1 : XMLSecurityDSig::SHA256,
            ['http://www.w3.org/2000/09/xmldsig#enveloped-signature', XMLSecurityDSig::EXC_C14N],
            ['id_name' => 'ID', 'overwrite' => false]);
        $signature->sign($key);
        $signature->add509Cert(file_get_contents($certificate));
        $issuer = $path->query('*[local-name()="Issuer"]', $assertion)->item(0);
        $signature->insertSignature($assertion, $issuer->nextSibling);
    }
}
echo base64_encode($document->saveXML());
