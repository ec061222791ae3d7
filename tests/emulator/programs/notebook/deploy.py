# What the cells before have made: the workspace, the project's folder with datautils.py, and a run with a model.
import os
import shutil
import sys

from azureml.core import Experiment, Workspace

ws = Workspace.from_config()
project_folder = './chainer-mnist'
os.makedirs(project_folder, exist_ok=True)
shutil.copy('datautils.py', project_folder)
best_run = Experiment(ws, 'chainer-mnist').start_logging()
best_run.upload_file('outputs/model.npz', sys.argv[1])
best_run.complete()

# Cell 44
model = best_run.register_model(model_name='chainer-dnn-mnist', model_path='outputs/model.npz')

# Cell 46
shutil.copy('chainer_score.py', project_folder)

# Cell 48
from azureml.core.runconfig import CondaDependencies

cd = CondaDependencies.create()
cd.add_conda_package('numpy')
cd.add_pip_package('chainer')
cd.add_pip_package("azureml-defaults")
cd.add_pip_package("azureml-opendatasets")
cd.save_to_file(base_directory='./', conda_file_path='myenv.yml')

print(cd.serialize_to_string())

# Cell 50
from azureml.core.webservice import AciWebservice
from azureml.core.model import InferenceConfig
from azureml.core.webservice import Webservice
from azureml.core.model import Model
from azureml.core.environment import Environment


myenv = Environment.from_conda_specification(name="myenv", file_path="myenv.yml")
inference_config = InferenceConfig(entry_script="chainer_score.py", environment=myenv,
                                   source_directory=project_folder)

aciconfig = AciWebservice.deploy_configuration(cpu_cores=1,
                                               auth_enabled=True, # this flag generates API keys to secure access
                                               memory_gb=2,
                                               tags={'name': 'mnist', 'framework': 'Chainer'},
                                               description='Chainer DNN with MNIST')

service = Model.deploy(workspace=ws,
                       name='chainer-mnist-1',
                       models=[model],
                       inference_config=inference_config,
                       deployment_config=aciconfig)
service.wait_for_deployment(True)
print(service.state)
print(service.scoring_uri)

# Cell 52
print(service.get_logs())

# Cell 54
print(service.scoring_uri)

# Cell 56
# retreive the API keys. two keys were generated.
key1, Key2 = service.get_keys()
print(key1)

# Cell 57
import matplotlib.pyplot as plt
import urllib
import gzip
import numpy as np
import struct
import requests


# load compressed MNIST gz files and return numpy arrays
def load_data(filename, label=False):
    with gzip.open(filename) as gz:
        struct.unpack('I', gz.read(4))
        n_items = struct.unpack('>I', gz.read(4))
        if not label:
            n_rows = struct.unpack('>I', gz.read(4))[0]
            n_cols = struct.unpack('>I', gz.read(4))[0]
            res = np.frombuffer(gz.read(n_items[0] * n_rows * n_cols), dtype=np.uint8)
            res = res.reshape(n_items[0], n_rows * n_cols)
        else:
            res = np.frombuffer(gz.read(n_items[0]), dtype=np.uint8)
            res = res.reshape(n_items[0], 1)
    return res

data_folder = os.path.join(os.getcwd(), 'data/mnist')
os.makedirs(data_folder, exist_ok=True)

urllib.request.urlretrieve('https://azureopendatastorage.blob.core.windows.net/mnist/t10k-images-idx3-ubyte.gz',
                           filename=os.path.join(data_folder, 't10k-images-idx3-ubyte.gz'))
urllib.request.urlretrieve('https://azureopendatastorage.blob.core.windows.net/mnist/t10k-labels-idx1-ubyte.gz',
                           filename=os.path.join(data_folder, 't10k-labels-idx1-ubyte.gz'))

X_test = load_data(os.path.join(data_folder, 't10k-images-idx3-ubyte.gz'), False) / np.float32(255.0)
y_test = load_data(os.path.join(data_folder, 't10k-labels-idx1-ubyte.gz'), True).reshape(-1)

# send a random row from the test set to score
random_index = np.random.randint(0, len(X_test)-1)
input_data = "{\"data\": [" + str(random_index) + "]}"

headers = {'Content-Type':'application/json', 'Authorization': 'Bearer ' + key1}

# send sample to service for scoring
resp = requests.post(service.scoring_uri, input_data, headers=headers)

print("label:", y_test[random_index])
print("prediction:", resp.text[1])

plt.imshow(X_test[random_index].reshape((28,28)), cmap='gray')
plt.axis('off')
plt.show()

# Cell 59
model = ws.models['chainer-dnn-mnist']
print("Model: {}, ID: {}".format('chainer-dnn-mnist', model.id))
       
webservice = ws.webservices['chainer-mnist-1']
print("Webservice: {}, scoring URI: {}".format('chainer-mnist-1', webservice.scoring_uri))

# Cell 62
service.delete()
