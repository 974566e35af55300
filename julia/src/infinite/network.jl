"""
    TeacherNet(net::Net, params), TeacherNet(; layers, params, n_features, T = Float64)

A network with fixed parameters that makes targets: `teacher(X)` is O×N for X of D×N.

    julia> teacher = TeacherNet(layers = ((1, softplus, true),), params = [1.0, -1.0, 0.0], n_features = 2);

    julia> teacher(zeros(2, 1)) ≈ [log(2)]'
    true
"""
struct TeacherNet{T}
    net::Net{T}
    params::Vector{T}
    function TeacherNet(net::Net{T}, params::AbstractVector) where {T}
        check_params(net, params)
        all(isfinite, params) || throw(ArgumentError("the teacher's parameters contain NaN or Inf"))
        return new{T}(net, Vector{T}(params))
    end
end
TeacherNet(; layers, params, n_features, T=Float64) =
    TeacherNet(Net(layers=layers, n_features=n_features, T=T), params)
(teacher::TeacherNet)(X) = predict(teacher.net, teacher.params, X)

"""
    InfiniteNet(teacher::TeacherNet, student::Net), InfiniteNet(teacher, layers)

Student and teacher in the limit of infinitely many standard normal inputs:

    L(θ) = E_x ‖student(x; θ) − teacher(x)‖² + R(θ),   x ~ N(0, I).

Both have one hidden layer and a linear output; widths, biases and activations (one for each unit if wanted) are free.
`student` is a net, whose data play no part and whose regularisers and output factor count, or its layers. It goes where
a [`Net`](@ref) goes: loss, gradient and Hessian are those of the expectation, with an error of at most 1e-10 (Hessian
1e-8) of E‖student‖² + E‖teacher‖² for weight norms from 0 to 10 and biases up to ±10, mostly far less. All is computed
in double precision; the number type is the student's, Float64 or Float32.

    julia> layers = ((2, relu, false), (1, identity, false));

    julia> teacher = TeacherNet(layers = layers, params = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0], n_features = 2);

    julia> loss(InfiniteNet(teacher, layers), zeros(6)) ≈ 1 + 1/π
    true
"""
mutable struct InfiniteNet{T,S} <: AbstractNet{T}
    teacher::TeacherNet
    student::Net{T}
    units::Vector{Neuron{S}}            # the student's, then the teacher's
    outputs::Matrix{S}                  # O × units: outgoing weights, the teacher's negated
    offset::Vector{S}                   # output bias minus the teacher's,
    teacher_offset::Vector{S}           # of which this is constant
    target::S                           # E‖teacher - its output bias‖²
    factor::Vector{S}                   # the output factor, for parameters of the last layer
    θ::Vector{S}
    g::Vector{S}
    v::Vector{S}
    H::Matrix{S}                        # 0×0 till the first Hessian in Float32
    pairs::PairWorkspace{S}
    monitor::Union{Nothing,Monitor}
end

InfiniteNet(teacher::TeacherNet, student::Net{<:Union{Float32,Float64}}) = InfiniteNet{Float64}(teacher, student)

# In the number type S, Float64 but in proofs.
function InfiniteNet{S}(teacher::TeacherNet, student::Net{T}) where {S,T}
    check_shallow("teacher", teacher.net)
    check_shallow("student", student)
    D, O, k = n_features(student), n_outputs(student), first(student.layers).width
    (n_features(teacher.net), n_outputs(teacher.net)) == (D, O) || throw(DimensionMismatch(
        "the teacher has $(n_features(teacher.net)) inputs and $(n_outputs(teacher.net)) outputs, the student $D and " *
        "$O"))
    hidden, last_layer = teacher.net.layers
    units = [hidden_units(S, first(student.layers)); hidden_units(S, hidden)]
    outputs, θ, c = zeros(S, O, length(units)), S.(teacher.params), -S(teacher.net.output_factor)
    for i in 1:hidden.width
        aim!(units[k+i], hidden, θ, i)
        outputs[:, k+i] = [c * θ[last_layer.offset+(o-1)*hidden.width+i] for o in 1:O]
    end
    pairs, target = PairWorkspace{S}(D), zero(S)
    for i in k+1:length(units), j in k+1:i
        target += (i == j ? 1 : 2) * column_product(outputs, i, j) * expectations!(pairs, units[i], units[j], 0).m00
    end
    offset = last_layer.bias ? c * θ[bias_offset(last_layer)+1:end] : zeros(S, O)
    P = student.n_params
    factor = ones(S, P)
    factor[last(student.layers).offset+1:P] .= student.output_factor
    return InfiniteNet{T,S}(teacher, student, units, outputs, zeros(S, O), offset, target, factor, zeros(S, P),
                            zeros(S, P), zeros(S, P), zeros(S, 0, 0), pairs, nothing)
end
InfiniteNet(teacher::TeacherNet{T}, layers) where {T} =
    InfiniteNet(teacher, Net(layers=layers, n_features=n_features(teacher.net), T=T))
InfiniteNet(::TeacherNet, ::Net{T}) where {T} =
    throw(ArgumentError("the number type is Float64 or Float32, this student's is $T"))

function check_shallow(who::String, net::Net)
    length(net.layers) == 2 && last(net.layers).activation isa Identity && net.objective isa MeanSquared || throw(
        ArgumentError("infinite data need one hidden layer and an output layer with the activation identity; the " *
                      "$who is " *
                      join(("$(l.width) $(l.activation)" for l in net.layers), " → ")))
    isempty(first(net.layers).chains) || throw(ArgumentError(
        "infinite data know no units that have merged, c σ(h) + a k σ′(h), and the $who has some: take the limit of " *
        "a net with data, net.on(input).limit(…)"))
    return nothing
end

hidden_units(::Type{S}, layer::Layer) where {S} =
    [Neuron{S}(c.activation, layer.fan_in) for c in layer.columns for _ in c.first:c.last]

aim!(p::Neuron, layer::Layer, θ, i::Int) =
    aim!(p, θ, layer.offset + (i - 1) * layer.fan_in, layer.bias ? θ[bias_offset(layer)+i] : zero(eltype(θ)))

function column_product(outputs, i, j)
    s = zero(eltype(outputs))
    @inbounds for o in 1:size(outputs, 1)
        s += outputs[o, i] * outputs[o, j]
    end
    return s
end

"Point the student at θ; false if that cannot be."
function aim!(net::InfiniteNet{T}, θ::Vector{T}) where {T}
    check_params(net, θ)
    hidden, last_layer = net.student.layers[1], net.student.layers[2]
    k, all_finite = hidden.width, true
    @inbounds for i in eachindex(θ)
        net.θ[i] = net.factor[i] * θ[i]
        all_finite &= isfinite(net.θ[i])
    end
    all_finite || return false
    for i in 1:k
        aim!(net.units[i], hidden, net.θ, i)
        for o in 1:size(net.outputs, 1)
            net.outputs[o, i] = net.θ[last_layer.offset+(o-1)*k+i]
        end
    end
    for o in eachindex(net.offset)
        net.offset[o] = net.teacher_offset[o] + (last_layer.bias ? net.θ[bias_offset(last_layer)+o] : 0)
    end
    return true
end

unregularised(net::InfiniteNet) = unregularised(net.student)
n_params(net::InfiniteNet) = n_params(net.student)
n_features(net::InfiniteNet) = n_features(net.student)
n_outputs(net::InfiniteNet) = n_outputs(net.student)
predict(net::InfiniteNet, θ, X) = predict(net.student, θ, X)
unpack(net::InfiniteNet, θ) = unpack(net.student, θ)
random_params(seed::Integer, net::InfiniteNet; options...) = random_params(seed, net.student; options...)
random_params(rng::AbstractRNG, net::InfiniteNet; options...) = random_params(rng, net.student; options...)
check_data(net::InfiniteNet) = nothing

function watch!(net::InfiniteNet, monitor)
    net.monitor = monitor
    return nothing
end

Base.show(io::IO, net::InfiniteNet{T}) where {T} = print(io, "InfiniteNet{", T, "}(", n_features(net), " → ",
    join(("$(l.width) $(l.activation)" * (l.bias ? "" : " (no bias)") for l in net.student.layers), " → "), "; ",
    length(net.units) - first(net.student.layers).width, " units in the teacher, ", n_params(net), " parameters)")
